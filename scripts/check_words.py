"""List retired words in code, configuration and documentation, with their replacements.

Every concept has one name in this project, and prose uses the standard terms of the field. ``WORDS`` maps retired words
to their replacements. A line that must contain one, such as a quotation, ends with a comment ``check_words: ignore``.

python scripts/check_words.py [FOLDER]   # prints "file:line: word -> replacement"; exits with status 1 if there is any
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEARCHED = ("kdzoo", "conf", "tests", "scripts", "examples", "docs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
SUFFIXES = (".py", ".yaml", ".md", ".sh", ".c")
IGNORE = "check_words: ignore"
# Built pages repeat docstrings; this file and its test contain the words.
EXCLUDED = ("docs/_build/", "scripts/check_words.py", "tests/scripts/test_check_words.py")

WORDS = {
    # Prose. Words may be separated by a line break.
    r"untaught": "trained without a teacher",
    # "There is no X" is plain English; only "Y is no X" is not.
    r"(?<!here\s)\b(?:is|are)\s+no\s+(?!(?:longer|more|better|less|larger|smaller|sharper|faster|slower)\b)[a-z]+": (
        "is not a ..., has no ..., there is no ..."
    ),
    r"\bof\s+(?:one|a\s+user)'s\s+own\b": "your own; user-defined",
    r"\bheld\s+against\b": "compared with",
    r"\bof\s+no\s+use\b": "has no effect; is not useful",
    r"\bno\s+gain\s+worth\b": "saves little",
    r"\basked\s+once\b": "computed once",
    r"\bLosses\s+that\s+hold\b": "Accurate losses",
    r"\bMistakes\s+at\s+once\b": "All errors are reported together",
    r"\brooms\b|\b_ROOMS\b": "packages",
    r"\bstrangers?\b": "unseen architecture",
    r"\bjudge[sd]?\b": "feature extractor, evaluation network; evaluate, compare",
    r"\b(?:the|two|distances,)\s+floors\b|\bdef floors\b|\.floors\(": "reference scores",
    r"\bportraits?\b": "plots of the model",
    r"\broll[-_]outs?\b": "rollout",
    r"\brehears\w*": "dry run, dry_run",
    r"\b(?:self|distiller)\.remarks\b|\bremarks\s": "notes",
    r"\badvice\b": "recommendation",
    r"\btaught\b": "distilled to, distilled from, trained on",
    # "To answer" is plain English; what a model returns is its output.
    r"\b(?:teacher|student|model|network)s?(?:'s?)?\s+answers?\b|"
    r"\b(?:the|its|their|these|those|of|from|all)\s+answers\b|"
    r"\banswers(?=[(),.]|\s=\s)|_answers(?:_|\b)": "outputs, teacher outputs",
    r"\bthe\s+like\b": "name what it is; such as ...",
    r"\beach\s+by\s+itself\b": "each on its own, each independently",
    r"\bcommittees?\b": "ensemble of language models, lm_ensemble",
    r"\bimitated\b": "distilled; teacher trace",
    r"\bhardened\b": "hard_label_logits",
    # Names in code.
    r"\bask_teacher\b|\bteacher_answers\b|\bteacher_output\(": "frozen_teacher.output, frozen_teacher.outputs",
    r"\bremember_answers\b": "cache_teacher_outputs",
    r"\bAnswers\b": "TeacherOutputs",
    r"\bself\.question\b|`question`": "frozen_teacher.cache_key",
    r"\bFittedDistiller\b": "ClosedFormDistiller",
    r"(?:->|import|\|) Strings\b|\bStrings(?:\.of|\()|``Strings``": "TokenSequences",
    r"\bmodels\.Layers\b|\bLayers\(|\bstudent=layers\b": "TruncatedTransformer, student=truncated",
    r"(?:->|import) Read(?:er|ing)\b|\bRead(?:er|ing)\(": "TextTransformer, TransformerOutput",
    r"\b(?:def |\.)owns\(": "is_exclusive_match",
    r"(?:\bdef |\.)(?:grown|start_from)\(": "with_learned_sizes, init_from_teacher",
    r"\brevive": "reseed_empty",
    r"\bgiven_rest\b": "conditional_effect",
    r"\blearner\b": "inner network",
    r"\bstart=neighbours\b": "start=local_attention",
    r"\bparents=(?:student|teacher)\b": "latents_from=student, latents_from=teacher",
    r"\bdistiller=evidence\b|\bdistillers\.Evidence\b": "distiller=elbo",
    r"\bconfig\.(?:lasting|plain)\b": "config.result_settings, config.to_container",
    r"\brun_folder\.(?:held|claim)\b": "run_folder.lock, run_folder.reserve",
    r"\bkdzoo[./](?:distiller|fitted|terms|checks|inference|hooks|batch|mistakes|command|signatures|registry|atomic|"
    r"checkpoint|run_folder|language|strings|reading|vocabulary|teacher_cache|pipeline|job|teachers|training|resume|"
    r"evaluate|graphical|synthetic)(?=[.`\s]|$)": "the package that holds the module (docs/architecture.md)",
    r"\b(?:fitted|mistakes|teacher_cache|strings|reading|vocabulary)\.py\b": "the present name of the file",
    # Local variables that do not say what they hold.
    r"(?m)^(?:said|theirs|ours|few)(?:: [^=\n]*)? = ": "a name that says what the variable holds",
}
PATTERNS = [(re.compile(pattern), use) for pattern, use in WORDS.items()]


def retired_words(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, match and replacement of each retired word in a text, in order of appearance."""
    lines = text.splitlines()
    # Without indentation and comment signs, words of adjacent lines are separated by a single line break.
    plain = re.sub(r"\n[ \t]*(?:# )?", "\n", text)
    matches = []
    for pattern, use in PATTERNS:
        for match in pattern.finditer(plain):
            line = plain.count("\n", 0, match.start()) + 1
            if IGNORE not in lines[line - 1]:
                matches.append((line, " ".join(match[0].split()), use))
    yield from sorted(matches)


def source_files(root: Path) -> Iterator[Path]:
    """Yield the files to search."""
    for entry in SEARCHED:
        path = root / entry
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            name = file.relative_to(root).as_posix()
            if file.is_file() and file.suffix in SUFFIXES and not name.startswith(EXCLUDED):
                yield file


def main(root: Path = ROOT) -> int:
    """Print every retired word below ``root`` and return the exit code."""
    count = 0
    for path in source_files(root):
        for line, word, use in retired_words(path.read_text(encoding="utf-8")):
            print(f"{path.relative_to(root)}:{line}: {word} -> {use}")
            count += 1
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
