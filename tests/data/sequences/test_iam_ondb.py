"""Handwritten lines of IAM-OnDB, from XML files that are written here."""

import pytest
import torch

from kdzoo.data import IAMOnDB
from kdzoo.data.sequences.iam_ondb import read_points
from kdzoo.errors import ConfigError, DataError


def ready(data):
    data.setup()
    return data


def drawing(batch, offsets):
    """Return pen states and offsets of all steps as they were before they were standardised."""
    steps = batch["input"][batch["mask"]]
    moves = steps[:, 1:] * torch.tensor(offsets["std"]) + torch.tensor(offsets["mean"])
    return torch.cat([steps[:, :1], moves], 1)


STROKES = [[(10, 20), (13, 18)], [(30, 25)], [(31, 26), (40, 26), (39, 20)]]

STEPS = [[1, 3, 2], [1, 17, -7], [0, 1, -1], [0, 9, 0], [1, -1, 6]]


def xml(strokes):
    points = [
        "".join(f'<Point x="{x}" y="{y}" time="{t / 100}"/>' for t, (x, y) in enumerate(stroke)) for stroke in strokes
    ]
    inner = "".join(f'<Stroke colour="black" start_time="0" end_time="1">\n{one}</Stroke>\n' for one in points)
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<WhiteboardCaptureSession>\n<WhiteboardDescription>'
        f'<SensorLocation corner="top_left"/></WhiteboardDescription>\n<StrokeSet>\n{inner}</StrokeSet>\n'
        "</WhiteboardCaptureSession>\n"
    )


def write_line(root, name, strokes):
    """Write the file of a line such as a01-000u-01."""
    group, form, _ = name.split("-")
    folder = root / "lineStrokes" / group / f"{group}-{form.rstrip('uvwxz')}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.xml").write_text(xml(strokes), encoding="iso-8859-1")


def write_forms(root, forms=10, lines=3):
    """Write lines whose first offset tells the form: 2 + its number, as 2 points each."""
    for form in range(forms):
        for line in range(lines):
            write_line(root, f"a01-{form:03d}u-{line:02d}", [[(0, 0), (2 + form, line)]])


@pytest.mark.parametrize("folder", ["", "iam_ondb"], ids=["root", "own_folder"])
def test_the_points_of_a_line_can_be_recovered(tmp_path, folder):
    for form in ("a01-000u", "a01-001z", "b02-003"):
        write_line(tmp_path / folder, f"{form}-01", STROKES)
    data = ready(IAMOnDB(root=tmp_path, val_size=1, test_size=1, batch_size=1))
    assert data.sizes == {"in_shape": (5, 3)}
    assert data.offsets == {"mean": (8.18, -0.11), "std": (41.95, 37.12)}
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        (batch,) = loader
        drawn = drawing(batch, data.offsets)
        torch.testing.assert_close(drawn, torch.tensor(STEPS).float(), rtol=0, atol=1e-4)


def forms_of(loader, offsets):
    return [round(float(dx)) - 2 for batch in loader for _, dx, _ in drawing(batch, offsets)]


def test_no_form_is_in_two_splits(tmp_path):
    write_forms(tmp_path)
    data = ready(IAMOnDB(root=tmp_path, val_size=0.2, test_size=0.3, batch_size=4))
    loaders = data.train_eval_dataloader(), data.val_dataloader(), data.test_dataloader()
    train, val, test = (forms_of(loader, data.offsets) for loader in loaders)
    assert (len(train), len(val), len(test)) == (15, 6, 9)
    assert sorted({*train}) + sorted({*val}) + sorted({*test}) != list(range(10))  # drawn, not cut in order
    assert sorted([*{*train}, *{*val}, *{*test}]) == list(range(10))
    other = ready(IAMOnDB(root=tmp_path, val_size=0.2, test_size=0.3, batch_size=4, seed=1))
    assert forms_of(other.test_dataloader(), data.offsets) == test


def test_lines_without_a_step_are_left_out(tmp_path):
    write_forms(tmp_path, forms=3)
    write_line(tmp_path, "a01-000u-08", [])
    write_line(tmp_path, "a01-000u-09", [[(5, 5)]])
    data = ready(IAMOnDB(root=tmp_path, val_size=0, test_size=1, batch_size=1))
    assert data.summary()["n_train"] + data.summary()["n_test"] == 9


DAMAGED = {
    "entity": ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "declares the entity 'b'; allowed: none"),
    "external_entity": (
        '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><a>&b;</a>',
        "declares the entity 'b'",
    ),
    "parameter_entity": ('<!DOCTYPE a [<!ENTITY % b "c">]><a/>', "declares the entity 'b'"),
    "unknown_entity": ("<a>&b;</a>", "is not XML"),
    "truncated": (xml(STROKES)[:-30], "is not XML"),
    "empty": ("", "is not XML"),
    "no_y": ('<a>\n<Point x="1"/></a>', "line 2 has a point without integer x and y; allowed: both"),
    "words": ('<a><Point x="1" y="two"/></a>', "line 1 has a point without integer x and y"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_invalid_files_are_refused(tmp_path, name):
    text, message = DAMAGED[name]
    path = tmp_path / "line.xml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_points(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_another_file_is_not_read(tmp_path):
    (tmp_path / "points.dtd").write_text('<!ATTLIST Point y CDATA "7">')
    path = tmp_path / "line.xml"
    path.write_text('<!DOCTYPE a SYSTEM "points.dtd"><a><Point x="1" y="2"/></a>')
    assert read_points(path).tolist() == [[0, 1, 2]]
    path.write_text('<!DOCTYPE a SYSTEM "points.dtd"><a><Point x="1"/></a>')
    with pytest.raises(DataError, match="line 1 has a point without integer x and y"):  # the file would give y
        read_points(path)


def test_missing_lines_and_invalid_options_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"iam_ondb: no folder lineStrokes is in .*set data.root or KDZOO_DATA"):
        IAMOnDB(root=tmp_path).setup()
    with pytest.raises(DataError, match=r"line.xml cannot be read"):
        read_points(tmp_path / "line.xml")
    write_forms(tmp_path, forms=2)
    with pytest.raises(ConfigError, match=r"val_size=0.1 and test_size=0.1 take 1 \+ 1 of 2; allowed: at most 1"):
        IAMOnDB(root=tmp_path).setup()
    with pytest.raises(DataError, match="the test split is empty"):
        IAMOnDB(root=tmp_path, val_size=0, test_size=0).setup()
    with pytest.raises(ConfigError, match=r"val_size=1.0 is not allowed; allowed: a fraction in \[0, 1\) or a count"):
        IAMOnDB(val_size=1.0)
    with pytest.raises(ConfigError, match="test_size must be an integer >= 0, got -1"):
        IAMOnDB(test_size=-1)


def test_pictures_of_lines_are_wide_and_upright(tmp_path):
    for form in ("a01-000u", "a01-001z"):
        write_line(tmp_path, f"{form}-01", [[(0, 0), (80, 0), (80, 20)]])  # in the file y is downwards
    data = ready(IAMOnDB(root=tmp_path, val_size=0, test_size=1, batch_size=1))
    (batch,) = data.test_dataloader()
    image = data.pictures(batch["input"], batch["mask"].sum(1))[0, 0]
    assert image.shape == (28, 224)
    rows, columns = (image > 0.3).nonzero().T
    assert (columns[rows < 10].max() - columns[rows < 10].min()) > 90  # the long line is above
    assert (columns[rows > 15] > 112).all()
