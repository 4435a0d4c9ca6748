"""Packaged configurations of models, with the settings of the files that they extend."""

from kdzoo.config import registry


def packaged(group, name):
    """Return the configuration of ``conf/<group>/<name>.yaml``."""
    return {"_target_": registry.targets(group)[name], **registry.settings(group, name)}
