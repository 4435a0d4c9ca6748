"""Data modules made from others: noise, sequences sampled from a teacher, streams of tasks."""
