"""Transfer sets that are made from other data: noise, sequences sampled from a teacher, streams of tasks."""
