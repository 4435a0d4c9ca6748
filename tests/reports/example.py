"""A report for the tests of its views."""


def model(accuracy, parameters=1234):
    """Return the measurements of one model."""
    metrics = {"accuracy": accuracy, "cross_entropy": 1 - accuracy}
    return {"parameters": parameters, "metrics": metrics, "cpu_ms_per_1000": 1.5}


def report(**changes):
    """Return a report of one seed, with some keys replaced."""
    roles = {"teacher": model(0.95, 5000), "student": model(0.9), "control": model(0.7)}
    return {
        "schema": 1,
        "kind": "classifier",
        "score": "accuracy",
        **roles,
        "controls": {"control": roles["control"], "cold_start": model(0.8)},
        "distiller": "logit_kd",
        "data": "digits",
        "seed": 0,
        "fidelity": {"student": {"kl": 0.25}},
        "recommendation": None,
        "comparison": {
            "metric": "accuracy",
            "better": "higher",
            "difference": 0.2,
            "std": None,
            "t": None,
            "p": None,
            "gap_closed": 0.8,
        },
        "expected": [],
        "splits": {"n_train": 100, "n_val": 10, "n_test": 50},
        "seconds": {"teacher": 1.0, "student": 2.0},
        "versions": {"python": "3.11"},
        "command": "kdzoo seed=0",
        **changes,
    }
