"""What the methods into automata share: the teachers' strings and traces, checkpoints, baselines and figures."""

import pytest
import torch

from kdzoo.automata import PFA
from kdzoo.automata.targets import tomita
from kdzoo.core.batch import valid_positions
from kdzoo.distillers import FGWPFA, OTPFA
from kdzoo.distillers.automata.language_model_to_pfa import pool_teachers
from kdzoo.errors import ConfigError
from kdzoo.models import RNNLM, LMEnsemble
from kdzoo.text.language_model import sequence_log_probs, trace_token_sequences


def collected(distiller, data):
    """Return the traced sequences of all batches of the transfer set."""
    traces = {}
    for batch in distiller.transfer_set(data).train_eval_dataloader():
        distiller.add_traces(batch, traces)
    return distiller.traced_sequences(traces)


def test_traces_are_those_of_the_teacher_along_the_training_strings(tomita4):
    torch.manual_seed(0)
    teacher = RNNLM(vocab_size=3, hidden=5)
    (traced,) = collected(OTPFA(PFA(vocab_size=3, states=2), teacher, n_samples=0), tomita4)
    strings = tomita4.corpus.train
    expected = trace_token_sequences(teacher, strings)
    assert torch.equal(traced.strings.tokens, strings.tokens)
    assert torch.equal(traced.strings.lengths, strings.lengths)
    torch.testing.assert_close(traced.hidden, expected.hidden)
    torch.testing.assert_close(traced.next_probs, expected.log_probs.exp())
    torch.testing.assert_close(traced.next_probs.sum(1), torch.ones(strings.n_prefixes))


def test_each_teacher_is_traced_along_its_own_strings(tomita4):
    members = [tomita(1), tomita(2)]
    distiller = OTPFA(PFA(vocab_size=3, states=2), LMEnsemble(members, [3, 1]), n_samples=40)
    traced = collected(distiller, tomita4)
    assert [len(part.strings) for part in traced] == [30, 10]
    for part, member in zip(traced, members, strict=True):
        assert bool(sequence_log_probs(member, part.strings).isfinite().all())
    # The first language has no zeros, the second alternates: neither can generate the other's strings.
    assert not bool(sequence_log_probs(members[0], traced[1].strings).isfinite().all())


def test_without_samples_the_transfer_set_is_the_data(tomita4):
    distiller = OTPFA(PFA(vocab_size=3, states=2), tomita(4), n_samples=0)
    assert distiller.transfer_set(tomita4) is tomita4


def test_a_seed_repeats_the_strings(tomita4):
    def fingerprint(seed):
        distiller = OTPFA(PFA(vocab_size=3, states=2), tomita(4), n_samples=20, seed=seed)
        return distiller.transfer_set(tomita4).fingerprint()

    assert fingerprint(0) == fingerprint(0) != fingerprint(1)


def test_the_term_is_the_divergence_of_the_next_symbol(tomita4):
    torch.manual_seed(0)
    teacher, student = RNNLM(vocab_size=3, hidden=5), tomita(4)
    batch = next(iter(tomita4.test_dataloader()))
    values = OTPFA(student, teacher).losses(batch)["kl"]
    with torch.no_grad():
        p, q = (model(batch["input"])[valid_positions(batch)].double().log_softmax(1) for model in (teacher, student))
    expected = (p.exp() * (p - q)).sum(1)
    torch.testing.assert_close(values.double(), expected, rtol=1e-5, atol=1e-6)


def test_teachers_without_a_string_are_counted(tomita4, fit):
    distiller = OTPFA(PFA(vocab_size=3, states=2), LMEnsemble([tomita(4), tomita(4)], [1, 999]), n_samples=10)
    with pytest.raises(ConfigError, match="n_samples=10 gives only 1 of 2 teachers a string; allowed: at least one"):
        fit(distiller, distiller.transfer_set(tomita4))


def test_figures_follow_the_checkpoint(tomita4, fit, tmp_path):
    distiller = FGWPFA(PFA(vocab_size=3, states=2), tomita(4), n_samples=50, restarts=1)
    assert distiller.report_extras.figures(tmp_path) == []
    fit(distiller, distiller.transfer_set(tomita4), epochs=1)
    checkpoint = {}
    distiller.on_save_checkpoint(checkpoint)
    restored = FGWPFA(PFA(vocab_size=3, states=2), tomita(4))
    restored.on_load_checkpoint(checkpoint)
    paths = restored.report_extras.figures(tmp_path)
    assert [path.name for path in paths] == ["hidden_states.png", "objective.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_baselines_learn_from_the_strings_of_all_teachers(tomita4):
    ensemble = LMEnsemble([tomita(1), tomita(2)])
    names = ["kmeans", "ngram3", "spectral", "baum_welch"]
    distiller = OTPFA(PFA(vocab_size=3, states=3), ensemble, n_samples=200, baselines=names)
    models = distiller.report_extras.baselines(distiller.transfer_set(tomita4))
    assert list(models) == names
    batch = next(iter(tomita4.test_dataloader()))
    for name, model in models.items():
        log_probs = model(batch["input"])[batch["mask"]]
        assert bool((log_probs.exp().sum(-1) - 1).abs().max() < 1e-6), name
        assert model.n_parameters > 0, name


def test_there_are_no_baselines_unless_they_are_named(tomita4):
    distiller = OTPFA(PFA(vocab_size=3, states=3), tomita(4), n_samples=20)
    assert distiller.report_extras.baselines(distiller.transfer_set(tomita4)) == {}


def test_pooled_teachers_have_no_common_hidden_states(tomita4):
    distiller = OTPFA(PFA(vocab_size=3, states=3), LMEnsemble([tomita(1), tomita(2)]), n_samples=20)
    first, second = collected(distiller, tomita4)
    assert pool_teachers([first]) is first
    pooled = pool_teachers([first, second])
    assert pooled.hidden is None
    assert len(pooled.strings) == 20
    assert torch.equal(pooled.next_probs, torch.cat([first.next_probs, second.next_probs]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": -1}, "n_samples must be an integer >= 0, got -1"),
        ({"max_length": 0}, "max_length must be an integer >= 1, got 0"),
        ({"baselines": ["foo"]}, "baselines must be one of kmeans"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        OTPFA(PFA(vocab_size=3, states=2), tomita(4), **options)
