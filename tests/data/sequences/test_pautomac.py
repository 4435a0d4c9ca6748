"""Problems of the PAutomaC competition, from files that are written here and from the real ones."""

import pytest
import torch

from kdzoo.automata.exchange import write_model, write_solution, write_strings
from kdzoo.automata.targets import random_pnfa
from kdzoo.data import PAutomaC
from kdzoo.errors import ConfigError, DataError


@pytest.fixture
def problem(tmp_path):
    """Problem 7 in a folder: the target, and what may be deleted there."""
    pfa = random_pnfa(8, 5, seed=1)
    folder = tmp_path / "pautomac"
    folder.mkdir()
    train, test = (pfa.sample(n, seed=n, max_length=300) for n in (200, 30))
    write_strings(train, 5, folder / "7.pautomac.train")
    write_strings(test, 5, folder / "7.pautomac.test")
    write_model(pfa, folder / "7.pautomac_model.txt")
    probabilities = pfa.log_prob(test).exp()
    write_solution(probabilities / probabilities.sum(), folder / "7.pautomac_solution.txt")
    return pfa, folder


def ready(data):
    data.setup()
    return data


@pytest.mark.parametrize("own_folder", [True, False])
def test_pautomac_with_target_and_solution(problem, own_folder):
    pfa, folder = problem
    data = ready(PAutomaC(problem=7, root=folder.parent if own_folder else folder, val_size=20, batch_size=8))
    assert data.summary() == {"n_train": 180, "n_labelled": 180, "n_val": 20, "n_test": 30, "num_classes": 6}
    torch.testing.assert_close(data.truth.log_prob(data.corpus.test), pfa.log_prob(data.corpus.test))
    torch.testing.assert_close(data.solution, data.truth.log_prob(data.corpus.test).softmax(0))
    assert all("truth" in batch for batch in data.test_dataloader())


def test_pautomac_without_target_and_solution(problem):
    _, folder = problem
    (folder / "7.pautomac_model.txt").unlink()
    (folder / "7.pautomac_solution.txt").unlink()
    data = ready(PAutomaC(problem=7, root=folder, train_size=50, batch_size=8))
    assert (data.truth, data.solution) == (None, None)
    assert data.summary()["n_train"] == 50
    assert all("truth" not in batch for batch in data.test_dataloader())


def test_missing_files_and_invalid_options_are_refused(problem):
    _, folder = problem
    with pytest.raises(DataError, match=r"pautomac: not all of 8\.pautomac\.train, 8.pautomac.test are in"):
        PAutomaC(problem=8, root=folder).setup()
    write_solution(torch.ones(3) / 3, folder / "7.pautomac_solution.txt")
    with pytest.raises(DataError, match=r"solution\.txt has 3 probabilities; allowed: 30, as test sequences"):
        PAutomaC(problem=7, root=folder).setup()
    with pytest.raises(ConfigError, match="problem must be an integer >= 0"):
        PAutomaC(problem="one")
    with pytest.raises(ConfigError, match=r"val_size=1.5 is not allowed"):
        PAutomaC(problem=7, val_size=1.5)


def test_the_solutions_of_the_competition_follow_from_its_targets(real_root):
    folder = real_root / "pautomac"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    for number in range(1, 49):
        data = ready(PAutomaC(problem=number, root=real_root))
        torch.testing.assert_close(data.truth.log_prob(data.corpus.test).softmax(0), data.solution, rtol=0, atol=1e-10)
