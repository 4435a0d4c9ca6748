"""Generated texts, and small whole runs of the methods on them."""

import random

import pytest

import kdzoo

WORDS = ["the", "cat", "dog", "bird", "sits", "runs", "sings", "on", "a", "mat", "tree", "red", "blue", "old", "small"]
SMALL_BERT = ("teacher.hidden_size=16", "teacher.layers=4", "teacher.heads=2", "teacher.max_length=16")
SHORT_RUN = ("seed=0", "trainer.max_epochs=1", "data.batch_size=16", "data.vocab_size=120")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder with a text, and with two tables of texts labelled by whether they mention a cat."""
    folder, generator = tmp_path_factory.mktemp("corpus"), random.Random(0)
    sentences = [" ".join(generator.choices(WORDS, k=generator.randint(4, 9))) for _ in range(240)]
    (folder / "text.txt").write_text("\n".join(sentences))
    for name, part in (("train", sentences[:180]), ("test", sentences[180:])):
        lines = [f"{sentence}\t{int('cat' in sentence)}" for sentence in part]
        (folder / f"{name}.tsv").write_text("text\tlabel\n" + "\n".join(lines))
    return folder


@pytest.fixture
def blocks(corpus, tmp_path):
    """Settings of the data of a masked language model."""
    sizes = ("data.block_size=16", "data.val_size=0.1", "data.test_size=0.1")
    return ["data=text", f"data.path={corpus / 'text.txt'}", f"data.cache={tmp_path / 'tokens'}", *sizes]


@pytest.fixture
def tables(corpus):
    """Settings of the data of a classifier or an encoder."""
    files = f"data.train_file={corpus / 'train.tsv'}", f"data.test_file={corpus / 'test.tsv'}"
    return ["data=text_classes", *files, "data.max_length=16"]


@pytest.fixture
def run(tmp_path):
    """A function that runs kdzoo with a small BERT as the teacher, in ``<tmp_path>/run`` unless overridden."""

    def run_small(*overrides):
        folders = (f"output_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}")
        return kdzoo.run(kdzoo.compose(*SMALL_BERT, *SHORT_RUN, *folders, *overrides))

    return run_small
