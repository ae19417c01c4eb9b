"""What every page of ours is made of: templates, styles, scripts, and the policy that forbids the rest."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from caveat.report.shown import Value, between, markup, shown, signed
from caveat.report.terms import TERMS

__all__ = ["PLACE", "inline", "interpreter", "own_script", "policy", "read", "template", "vendor"]

PLACE = files("caveat.report")
HELPERS: dict[str, Any] = {
    "between": between,
    "markup": markup,
    "shown": shown,
    "signed": signed,
    "terms": TERMS,
    "value": Value,
}
"""What every template may call."""


def read(name: str) -> str:
    """The text of a file that lies beside this one."""
    return PLACE.joinpath(name).read_text(encoding="utf-8")


def template(name: str, helpers: Mapping[str, Any]) -> Template:
    """A template that escapes all it is given and knows `helpers`; templates may include one another by name."""
    environment = Environment(
        loader=FunctionLoader(read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(HELPERS | dict(helpers))
    return environment.get_template(name)


def vendor(name: str) -> str:
    """A script of others, without the line that names its source map: a reference to a file that is not there."""
    return re.sub(r"^//# sourceMappingURL=.*$", "", read(f"vendor/{name}"), flags=re.MULTILINE).strip()


def interpreter() -> str:
    """Vega's expression interpreter as plain script: no expression is compiled by `eval`, which the policy forbids."""
    # it comes as an ES module; in a page without modules its import and export are lines of plain script
    source = vendor("vega-interpreter.js")
    source, imports = re.subn(r"^import (\{.*\}) from 'vega-util';$", r"const \1 = vega;", source, flags=re.MULTILINE)
    source, exports = re.subn(r"^export \{ (\w+) as expressionInterpreter \};$", r"return \1;", source, flags=re.M)
    if (imports, exports) != (1, 1):
        raise RuntimeError("vendor/vega-interpreter.js has changed its import or export line: see vendor/README.md")
    return f"const expressionInterpreter = (() => {{\n{source}\n}})();"


def own_script(names: Sequence[str], before: str = "") -> str:
    """Our scripts as one, with its names to itself."""
    return "\n".join(['"use strict";', "(() => {", before, *(read(name) for name in names), "})();"])


def inline(style: str, scripts: Sequence[str]) -> dict[str, Any]:
    """What a template needs to inline style and scripts, and nothing else may run."""
    return {"style": Markup(style), "scripts": [Markup(script) for script in scripts], "policy": policy(style, scripts)}


def policy(style: str, scripts: Sequence[str]) -> str:
    """The content security policy of a page that refers to nothing outside itself."""
    hashes = " ".join(_hash(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
