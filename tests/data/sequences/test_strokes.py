"""Pen strokes: kanji from one archive, and handwritten lines from XML files that are written here."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.data import IAMOnDB, KanjiStrokes
from kdzoo.data.sequences import strokes
from kdzoo.data.sequences.iam_ondb import read_points
from kdzoo.data.sequences.strokes import offset_scaling, stroke_images, stroke_steps
from kdzoo.errors import ConfigError, DataError


def ready(data):
    data.setup()
    return data


def drawing(batch, offsets):
    """Return pen states and offsets of all steps as they were before they were standardised."""
    steps = batch["input"][batch["mask"]]
    moves = steps[:, 1:] * torch.tensor(offsets["std"]) + torch.tensor(offsets["mean"])
    return torch.cat([steps[:, :1], moves], 1)


def test_pen_states_are_0_or_1_and_offsets_change():
    unscaled = {"mean": (0.0, 0.0), "std": (1.0, 1.0)}
    with pytest.raises(DataError, match="pen state 2 at step 1 is not allowed; allowed: 0 or 1"):
        stroke_steps(np.array([1, 2]), np.zeros((2, 2)), unscaled)
    with pytest.raises(DataError, match=r"offsets have the standard deviations \[0.5, 0.0\]; allowed: > 0"):
        offset_scaling(np.array([[0, 1], [1, 1]]))


# ---------------------------------------------------------------- kanji

LENGTHS = {"train": [2, 5, 3, 4], "valid": [3], "test": [6, 1]}


def archive(folder, **changes):
    """Write a small archive; return its strokes (dx, dy, pen) for each part."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, lengths in LENGTHS.items():
        n = sum(lengths)
        strokes = np.column_stack([rng.integers(-99, 99, (n, 2)), rng.integers(0, 2, n)]).astype(np.int16)
        arrays |= {f"{part}_strokes": strokes, f"{part}_lengths": np.array(lengths, np.int16)}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "short_kanji.npz", **{**arrays, **changes})
    return arrays


@pytest.mark.parametrize("folder", ["", "kanji_strokes"], ids=["root", "own_folder"])
def test_kanji_can_be_drawn_again(tmp_path, folder):
    arrays = archive(tmp_path / folder)
    data = ready(KanjiStrokes(root=tmp_path, batch_size=2))
    assert data.sizes == {"in_shape": (6, 3)}
    assert data.lengths.tolist() == LENGTHS["train"]
    assert data.summary() == {"n_train": 4, "n_labelled": 0, "n_val": 1, "n_test": 2, "num_classes": 0}
    train = arrays["train_strokes"][:, :2].astype(float)
    assert data.offsets["mean"] == pytest.approx(train.mean(0))
    assert data.offsets["std"] == pytest.approx(train.std(0))
    loaders = {"train": data.train_eval_dataloader(), "valid": data.val_dataloader(), "test": data.test_dataloader()}
    for part, loader in loaders.items():
        (batch,) = loader
        expected = torch.from_numpy(arrays[f"{part}_strokes"][:, [2, 0, 1]]).float()
        torch.testing.assert_close(drawing(batch, data.offsets), expected, rtol=0, atol=1e-4)


def test_offsets_are_those_of_the_whole_training_part(tmp_path):
    archive(tmp_path)
    one, other = (
        KanjiStrokes(root=tmp_path, batch_size=2),
        KanjiStrokes(root=tmp_path, train_size=2, max_steps=1, batch_size=2),
    )
    with pytest.raises(RuntimeError, match=r"call KanjiStrokes.setup\(\) first"):
        one.offsets  # noqa: B018
    assert ready(one).offsets == ready(other).offsets


def test_bad_kanji(tmp_path):
    with pytest.raises(DataError, match=r"kanji_strokes: not all of short_kanji.npz are in"):
        KanjiStrokes(root=tmp_path).setup()
    archive(tmp_path, valid_strokes=np.zeros((3, 2), np.int16))
    with pytest.raises(DataError, match=r"short_kanji.npz: valid_strokes is \[3, 2\]; allowed: \[n, 3\] with n >= 1"):
        KanjiStrokes(root=tmp_path).setup()
    archive(tmp_path, test_lengths=np.array([6, 2]))
    with pytest.raises(DataError, match=r"steps are \[7, 3\] for lengths that add up to 8"):
        KanjiStrokes(root=tmp_path).setup()


def test_real_kanji(real_root):
    if not (real_root / "kanji_strokes").is_dir():
        pytest.skip("no kanji")
    data = ready(KanjiStrokes(root=real_root))
    assert data.summary() == {"n_train": 10000, "n_labelled": 0, "n_val": 600, "n_test": 500, "num_classes": 0}
    assert data.sizes == {"in_shape": (88, 3)}
    steps = data.splits.train.sequences.steps
    assert steps[:, 0].unique().tolist() == [0, 1]
    assert steps[:, 1:].mean(0).abs().max() < 1e-5
    assert (steps[:, 1:].std(0) - 1).abs().max() < 1e-5
    ends = data.lengths.cumsum(0) - 1
    assert steps[ends, 0].mean() == 1  # the pen is lifted after the last point
    drawn = drawing(next(iter(data.test_dataloader())), data.offsets)
    torch.testing.assert_close(drawn, drawn.round(), rtol=0, atol=1e-3)


# ---------------------------------------------------------------- handwritten lines

STROKES = [[(10, 20), (13, 18)], [(30, 25)], [(31, 26), (40, 26), (39, 20)]]
STEPS = [[1, 3, 2], [1, 17, -7], [0, 1, -1], [0, 9, 0], [1, -1, 6]]
"""What the strokes are as (pen, dx, dy), y upwards, from the first point on."""


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
def test_a_line_can_be_drawn_again(tmp_path, folder):
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


def test_no_form_is_in_two_parts(tmp_path):
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
    "unknown_entity": ("<a>&b;</a>", "is no XML"),
    "truncated": (xml(STROKES)[:-30], "is no XML"),
    "empty": ("", "is no XML"),
    "no_y": ('<a>\n<Point x="1"/></a>', "line 2 has a point without integer x and y; allowed: both"),
    "words": ('<a><Point x="1" y="two"/></a>', "line 1 has a point without integer x and y"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_bad_lines(tmp_path, name):
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


def test_missing_lines_and_bad_options(tmp_path):
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


# ---------------------------------------------------------------- images


def by_all_distances(steps, length, height, width):
    """Return the image of one drawing [T, 3], by the distance of every pixel to every line."""
    ends = steps[:length, 1:].double().cumsum(0)
    starts = torch.cat([torch.zeros(1, 2).double(), ends[:-1]])
    lifted = torch.cat([torch.zeros(1), steps[: length - 1, 0]]) > 0.5
    starts[lifted] = ends[lifted]
    corners = torch.cat([starts, ends])
    low, high = corners.amin(0), corners.amax(0)
    pen = max(1, height / 28)
    box = torch.tensor([width, height]).double() - 2 * (int(np.ceil(pen / 2 + 0.5)) + 1)
    scale = min(float(side / extent) if extent else np.inf for side, extent in zip(box, high - low, strict=True))
    scale = 0 if scale == np.inf else scale
    middle = torch.tensor([width - 1, height - 1]) / 2
    starts, ends = ((one - (low + high) / 2) * scale + middle for one in (starts, ends))
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    away = torch.stack([x, y], -1)[:, :, None] - starts
    along = ends - starts
    share = ((away * along).sum(-1) / along.square().sum(-1).clamp_min(1e-12)).clamp(0, 1)
    distance = (away - share[..., None] * along).norm(dim=-1).amin(2)
    return (pen / 2 + 0.5 - distance).clamp(0, 1)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 9999), st.integers(1, 9), st.sampled_from([(28, 28), (9, 40), (70, 50)]), st.booleans())
def test_ink_depends_on_the_distance_to_the_nearest_line(seed, length, size, upright):
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(9, 3, generator=generator)
    steps[:, 0] = (steps[:, 0] > 0.5).float()
    if upright:
        steps[:, 1] = 0
    expected = by_all_distances(steps, length, *size)
    image = stroke_images(steps[None], torch.tensor([length]), size)
    torch.testing.assert_close(image[0, 0].double(), expected, rtol=0, atol=1e-4)


def test_a_straight_stroke():
    image = stroke_images(torch.tensor([[[0.0, 2, 0], [1, 3, 0]]]))[0, 0]
    assert image.shape == (28, 28)
    rows, columns = image.nonzero().T
    assert rows.unique().tolist() == [13, 14]  # in the middle, between two rows
    assert columns.unique().tolist() == list(range(1, 27))
    torch.testing.assert_close(image[13:15, 2:26], torch.full((2, 24), 0.5))
    upright = stroke_images(torch.tensor([[[0.0, 0, 2], [1, 0, 3]]]))[0, 0]
    torch.testing.assert_close(upright, image.T)


def test_a_lifted_pen_leaves_no_ink():
    steps = torch.tensor([[0.0, 10, 0], [0, 0, 10], [1, -10, 0]])  # open on the left
    lifted = steps.clone()
    lifted[0, 0] = 1  # then the second step is a dot at its end
    drawn, lifted = stroke_images(torch.stack([steps, lifted]))[:, 0]
    assert drawn[14, 20:].max() > 0.4
    assert lifted[14].max() == 0
    torch.testing.assert_close(lifted[:10, :20], drawn[:10, :20])
    assert lifted[-10:].sum() > 10
    assert drawn[14, :10].max() == 0


def test_a_dot_and_drawings_without_ink():
    steps = torch.zeros(4, 2, 3)
    steps[1, :, 1:], steps[2, 1, 2] = 5.0, torch.nan
    steps[3, :, 1:] = torch.tensor([[1e38, 0], [3e38, 0]])
    images = stroke_images(steps, torch.tensor([1, 0, 2, 2]), 9)[:, 0]
    dot = torch.zeros(9, 9)
    dot[4, 4] = 1
    torch.testing.assert_close(images, torch.stack([dot, *[torch.zeros(9, 9)] * 3]))
    assert stroke_images(steps[:0]).shape == (0, 1, 28, 28)


def test_images_do_not_depend_on_size_or_what_follows_the_drawing():
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(20, 6, 3, generator=generator)
    lengths = torch.randint(1, 7, (20,), generator=generator)
    images = stroke_images(steps, lengths)
    larger = steps * torch.tensor([1, 50, 50])
    larger[torch.arange(6) >= lengths[:, None]] = torch.nan
    torch.testing.assert_close(stroke_images(larger, lengths), images, rtol=0, atol=1e-3)
    torch.testing.assert_close(stroke_images(steps, torch.full((20,), 6)), stroke_images(steps))
    parts = [stroke_images(steps[i : i + 1], lengths[i : i + 1]) for i in range(20)]
    torch.testing.assert_close(torch.cat(parts), images, rtol=0, atol=1e-5)


def test_many_pieces_are_drawn_in_blocks(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(5, 6, 3, generator=generator)
    whole = stroke_images(steps)
    monkeypatch.setattr(strokes, "_BLOCK", 7)
    assert torch.equal(stroke_images(steps), whole)


@pytest.mark.parametrize("size", [7, (28, 0)], ids=["side", "width"])
def test_small_images(size):
    with pytest.raises(ConfigError, match=r"size must be an integer >= 8, got"):
        stroke_images(torch.zeros(1, 1, 3), None, size)


def test_pictures_undo_the_standardisation(tmp_path):
    archive(tmp_path)
    kanji = ready(KanjiStrokes(root=tmp_path, batch_size=4))
    (batch,) = kanji.train_eval_dataloader()
    lengths = batch["mask"].sum(1)
    to_container = torch.zeros_like(batch["input"])
    to_container[batch["mask"]] = drawing(batch, kanji.offsets)
    torch.testing.assert_close(
        kanji.pictures(batch["input"], lengths), stroke_images(to_container, lengths), rtol=0, atol=1e-3
    )
    assert kanji.pictures(batch["input"], lengths, 40).shape == (4, 1, 40, 40)


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
