"""The JSON Schema of configurations, by which editors complete and check YAML files, without importing torch.

Keys, types and defaults come from the signatures of the classes, descriptions from the comments of the packaged files
and from docstrings.
"""

from kdzoo.config.schema.document import document

__all__ = ["document"]
