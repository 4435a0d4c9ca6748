"""The comment behind a key is found in every form that YAML has for its value."""

from kdzoo.config.schema.comments import comments


def test_a_comment_belongs_to_its_key():
    text = """# a heading
_target_: my.Net
width: 3  # neurons
name: "a # b"  # a quoted text
plain: x#y
rates:  # of the step
  images: 1.0  # of the images
  bare: 2.0
tasks: [[0, 1], [2]]  # labels of each task
members:
  - _target_: my.Part  # first
    sizes: {a: 1, b: 2}  # two sizes
"""
    assert comments(text) == {
        "width": "neurons",
        "name": "a quoted text",
        "rates": "of the step",
        "rates.images": "of the images",
        "tasks": "labels of each task",
        "members.0._target_": "first",
        "members.0.sizes": "two sizes",
    }


def test_an_empty_file_has_none():
    assert comments("") == {}
    assert comments("# only a heading\n") == {}
