"""SST-2, from small files and from the real ones."""

import pytest

from kdzoo.data import SST2
from kdzoo.errors import DataError
from kdzoo.text.tokenizers import train_tokenizer

WORDS = ["the", "film", "is", "good", "bad", "and", "not", "very", "boring", "brilliant"]


def table(n, start=0):
    rows = (
        f"{' '.join(WORDS[(i + k) % 10] for k in range(1 + i * 7 % 9))}\t{'pos' if i % 3 else 'neg'}"
        for i in range(start, start + n)
    )
    return "text\tlabel\n" + "\n".join(rows) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("transformers")
    found = tmp_path_factory.mktemp("classes")
    (found / "train.tsv").write_text(table(60))
    (found / "test.tsv").write_text(table(11, 60))
    tokenizer = train_tokenizer(WORDS, 90)
    tokenizer.model_max_length = 30
    tokenizer.save_pretrained(found / "tokenizer")
    return found


def test_small_files_are_divided_as_documented(folder, tmp_path):
    (tmp_path / "sst2").mkdir()
    for name, n in (("train.tsv", 30), ("dev.tsv", 9)):
        (tmp_path / "sst2" / name).write_text(table(n).replace("text", "sentence"))
    data = SST2(root=tmp_path, tokenizer=folder / "tokenizer", max_length=20, val_size=0.1, train_size=20, batch_size=4)
    data.setup()
    assert data.summary() == {"n_train": 20, "n_labelled": 20, "n_val": 3, "n_test": 9, "num_classes": 2}
    with pytest.raises(DataError, match=r"sst2: not all of train.tsv, dev.tsv are in"):
        SST2(root=tmp_path / "absent").setup()


def test_the_published_files_have_the_published_sizes(folder, real_root):
    if not (real_root / "sst2").is_dir():
        pytest.skip(f"no {real_root / 'sst2'}")
    train, test = SST2(root=real_root).read()
    assert (len(train.texts), len(test.texts)) == (67_349, 872)
    assert (train.labels.count("1"), test.labels.count("1")) == (37_569, 444)


def test_sizes_before_setup_are_refused():
    with pytest.raises(RuntimeError, match=r"call SST2.setup\(\) first"):
        SST2().sizes  # noqa: B018
