"""The text of ``kdzoo --help``, printed without Hydra, which would compose every configuration for it first."""

import shutil
from pathlib import Path
from textwrap import fill

from kdzoo import config

TEXT = """\
kdzoo: distil a frozen teacher into a student, and compare both with a control that is trained without the teacher.

== Commands ==
kdzoo [group=option] [key=value]   run; the same command continues an interrupted run
kdzoo -m key=a,b [...]             run a sweep: each combination has its own folder
kdzoo list [NAME]                  list the distillers by task, or describe any option below
kdzoo explain [METRIC]             say what a metric means
kdzoo cite [NAME] [...]            print BibTeX entries of a distiller, or of what a run uses
kdzoo evaluate FOLDER [data=...]   measure an exported model
kdzoo report FOLDER...             rank finished runs, and write a page and a table about them
kdzoo sweep FOLDER                 show all jobs of a sweep and their states, and rank them
kdzoo cache [...]                  store the teacher's outputs for runs, in many processes
kdzoo check [...]                  run the contract checks on your distiller
kdzoo matrix [GROUP=NAME...]       say which teachers, students and distillers work together
kdzoo schema [GROUP]               print the JSON Schema of YAML files, for editors
kdzoo doctor                       show what is installed, and whether it works

== Groups and their options (group=option) ==
{groups}

== Examples ==
kdzoo                                                      embedded digits, five seeds
kdzoo debug=fast                                           a short run that finds errors
kdzoo distiller=dkd data=mnist 'student.hidden=[800,800]'  another method, data set and size
kdzoo -m distiller.temperature=1,4,20 seed=0,1,2           nine runs; finished ones are not repeated
kdzoo experiment=hinton2015_mnist                          reproduce a published result
kdzoo --config-dir conf distiller=my_kd                    your own my_kd.py + conf/distiller/my_kd.yaml
kdzoo --cfg job distiller=dkd                              all settings of a run
kdzoo schema > schema.json                                 completion in editors

A run leaves report.json, report.md, report.html, figures and the exported student in outputs/.
Tab completion: eval "$(kdzoo -sc install=bash)". Flags of Hydra: kdzoo --hydra-help"""


def print_usage(folder: Path | None = None) -> None:
    """Print the commands, the config groups with their options, and examples.

    Args:
        folder: The user's config folder, whose options are listed too.
    """
    known, width = config.groups(folder), shutil.get_terminal_size().columns
    lines = [fill(f"{group}: {', '.join(known[group])}", width, subsequent_indent="    ") for group in sorted(known)]
    print(TEXT.format(groups="\n".join(lines)))
