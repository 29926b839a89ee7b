"""The rules of this project that no other tool checks. Each rule says what it forbids, and why, in one line."""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "backend" / "evervec"
TESTS = ROOT / "tests"
MOST_LINES = 400
MOST_ENDING = 5
NAMELESS = {"utils", "util", "common", "helpers", "base", "misc"}
TRANSACTION_VERBS = {"commit", "rollback", "transaction", "begin"}

CLOCK_CALLS = re.compile(r"(\w+\.)*(time\.time|datetime\.now|datetime\.utcnow|datetime\.today|date\.today)")
STOPWATCHES = re.compile("process_time|thread_time|perf_counter")
WAITS = re.compile(r"asyncio\.(timeout|wait_for)|eventually|until|until_true")
PATIENCE = 60
CLOCK_READERS = {
    "vendors/http.py": "a vendor names a moment by a date",
    "queue/depth.py": "NATS says when it last delivered a task, not how long ago",
    "cli/commands/index.py": "a run of today is shown with its hour, an older one with its day",
}

SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER|DROP|TRUNCATE|LOCK|SET)\s+[\w\"'(*]")
SQL_ROOMS = ("store/", "stack/postgres/")
"""The second makes the embedded server's cluster and database, before anything can connect to it."""

SESSION_LOCKS = ("store/database/session.py", "store/schema/migrations.py", "store/embeddings/hnsw.py")
"""The first makes them; migrations and builds of HNSW indexes hold them, on a direct connection."""

NEAREST = re.compile(
    r"\bORDER\s+BY\b(?:(?!\bLIMIT\b).)*(?:<=>|distance)(?:(?!\bORDER\b).)*\bLIMIT\b|^\s*\w*nearest\w*\s*$", re.DOTALL
)
"""A search that is ordered by a distance and cut off, or a part that a function with such a name puts in."""
FILTERING = re.compile(
    r"(?:\bWHERE\b|(?<!LEFT )\bJOIN\b(?:(?!\bJOIN\b|\bWHERE\b).)*?\b(?:ON|USING)\b)"
    r"(?:(?!\bWHERE\b|\bJOIN\b|\bLEFT\b|\bCROSS\b|\bGROUP\s+BY\b|\bORDER\s+BY\b|\bLIMIT\b|\bSELECT\b).)*",
    re.DOTALL,
)

CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*")
PRIVATE_WORDS = re.compile(r"kitchen|canary_sings|in_company|\bwish|left without a word", re.IGNORECASE)

Finding = tuple[Path, int, str]


@dataclass(frozen=True)
class Module:
    """A file of the package with its source text."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        """Return the path inside the package, with slashes."""
        return self.path.relative_to(PACKAGE).as_posix()

    @property
    def place(self) -> tuple[Path, str]:
        """Return the folder it is in and its name there; a package is in the folder above its own."""
        at = self.path.parent if self.path.stem == "__init__" else self.path.with_suffix("")
        return at.parent, at.name

    @cached_property
    def tree(self) -> ast.Module:
        """Return the parsed source."""
        return ast.parse(self.text, str(self.path))

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Return every node of the parsed source."""
        return list(ast.walk(self.tree))


def commits(module: Module) -> Iterator[Finding]:
    """Forbid commits outside of store/database/session.py: whoever opens a transaction owns it (law 6)."""
    if module.name == "store/database/session.py":
        return
    for node in module.nodes:
        if isinstance(node, ast.Attribute) and node.attr in TRANSACTION_VERBS:
            # the library's core opens one of the database, and its spaces roll back a flip
            owner = ast.unparse(node.value)
            if not owner.endswith(("database", "core", "Spaces")):
                text = f"{owner}.{node.attr}: transactions are opened by store/database/session.py's Database"
                yield module.path, node.lineno, text


def connections(module: Module) -> Iterator[Finding]:
    """Forbid to connect but by store/address/connecting.py: it alone reads addresses, and as libpq does."""
    if module.name == "store/address/connecting.py":
        return
    for node in module.nodes:
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "asyncpg.connect":
            yield module.path, node.lineno, "asyncpg.connect: connect by store/address/connecting.py"


def statements(module: Module) -> Iterator[Finding]:
    """Forbid SQL outside of the store: there it is read, named, and its plan is tested."""
    if module.name.startswith(SQL_ROOMS):
        return
    docstrings = [node.value for node in module.nodes if isinstance(node, ast.Expr)]
    for node in module.nodes:
        if isinstance(node, ast.Constant) and SQL.match(str(node.value)) and node not in docstrings:
            text = f"{str(node.value).split()[0]} …: SQL belongs into a function of the store"
            yield module.path, node.lineno, text


def late_filters(module: Module) -> Iterator[Finding]:
    """Forbid a filter or a join on what an ordered search has cut off already: it takes hits away, and others were left out.

    Its distance may be compared, since that only shortens the end; a LEFT JOIN takes nothing away.
    """
    for line, text in sql_texts(module):
        for start, end in _parentheses(text):
            inner = _outermost(text[start + 1 : end])
            if not NEAREST.search(inner):
                continue
            names = {words[-1] for item in _select_list(inner) if (words := re.findall(r"\w+", item))} - {"distance"}
            cte = re.search(r"(\w+)\s+AS\s+(?:NOT\s+)?(?:MATERIALIZED\s+)?$", text[:start])
            after = text[end + 1 :] if cte else text[end + 1 : _closing(text, end + 1)]
            alias = cte[1] if cte else "".join(re.findall(r"^\s*(?:AS\s+)?(\w+)", after))
            for clause in FILTERING.findall(after):
                for owner, name in re.findall(r"(?:(\w+)\.)?\b(\w+)\b(?!\.)", clause):
                    if (owner == alias and name != "distance") or (not owner and name in names):
                        yield (
                            module.path,
                            line,
                            f"{alias}.{name} is filtered after the LIMIT: filter inside of the search",
                        )


def session_locks(module: Module) -> Iterator[Finding]:
    """Forbid session locks but for what changes the schema: a pooler loses them, and a frozen process keeps them for ever."""
    if module.name in SESSION_LOCKS:
        return
    for node in module.nodes:
        named = isinstance(node, ast.Attribute) and node.attr == "advisory_lock"
        if named or (isinstance(node, ast.Constant) and re.search(r"pg_(try_)?advisory_lock", str(node.value))):
            yield module.path, getattr(node, "lineno", 1), "a session lock: hold a lease of pipeline/leases.py"


def sql_texts(module: Module) -> Iterator[tuple[int, str]]:
    """Return the texts of a module that hold SQL, with their lines; what an f-string puts in is one word."""
    parts = {id(part) for node in module.nodes if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in module.nodes:
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(
                    re.sub(r"\W+", "_", ast.unparse(part.value))
                    if isinstance(part, ast.FormattedValue)
                    else str(part.value)
                    for part in node.values
                    if isinstance(part, ast.FormattedValue | ast.Constant)
                ),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.lineno, node.value


def _parentheses(text: str) -> Iterator[tuple[int, int]]:
    return ((at, _closing(text, at + 1)) for at, letter in enumerate(text) if letter == "(")


def _closing(text: str, start: int) -> int:
    """Return where the parenthesis around `start` is closed; the end of the text if there is none."""
    depth = 0
    for at in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth < 0:
            return at
    return len(text)


def _outermost(text: str) -> str:
    """Return a text without what is in parentheses."""
    while (shorter := re.sub(r"\([^()]*\)", " ", text)) != text:
        text = shorter
    return text


def _select_list(inner: str) -> list[str]:
    found = re.search(r"\bSELECT\b(.*?)\bFROM\b", inner, re.DOTALL)
    return found[1].split(",") if found else []


def tasks(module: Module) -> Iterator[Finding]:
    """Require a name from queue/names.py for every task: a moved function must not orphan messages in flight."""
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                text = ast.unparse(decorator)
                if re.search(r"broker\.task\b", text) and "task_name=names." not in text:
                    yield module.path, node.lineno, f"task {node.name} has no task_name from queue/names.py"


def clocks(module: Module) -> Iterator[Finding]:
    """Forbid the wall clock of a process to decide anything: leases and delays use PostgreSQL's clock."""
    if module.name in CLOCK_READERS:
        return
    for node in module.nodes:
        if isinstance(node, ast.Call) and CLOCK_CALLS.fullmatch(ast.unparse(node.func)):
            text = f"{ast.unparse(node.func)}(): use PostgreSQL's now(), or time.monotonic()"
            yield module.path, node.lineno, text


def stopwatches(module: Module) -> Iterator[Finding]:
    """Forbid a test to measure processor time: a busy machine fails it. What must end in time has a deadline instead."""
    for node in module.nodes:
        if isinstance(node, ast.Name | ast.Attribute | ast.alias) and STOPWATCHES.fullmatch(_last_name(node)):
            yield module.path, node.lineno, f"{_last_name(node)} in a test: mark it with @pytest.mark.timeout(seconds)"


def hurries(module: Module) -> Iterator[Finding]:
    """Forbid a test to wait for less than a busy machine needs: a deadline that is kept costs nothing."""
    for node in module.nodes:
        if isinstance(node, ast.Call) and WAITS.fullmatch(ast.unparse(node.func)):
            for given in (*node.args, *(keyword.value for keyword in node.keywords)):
                if isinstance(given, ast.Constant) and isinstance(given.value, int | float) and given.value < PATIENCE:
                    yield module.path, node.lineno, f"a deadline of {given.value} s in a test: give it {PATIENCE} s"


def _last_name(node: ast.Name | ast.Attribute | ast.alias) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
            return name


def pickles(module: Module) -> Iterator[Finding]:
    """Forbid pickle: whoever can write a bucket or a file could run code here."""
    for node in module.nodes:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if "pickle" in names or (isinstance(node, ast.ImportFrom) and node.module == "pickle"):
            yield module.path, getattr(node, "lineno", 1), "pickle is not imported here"


def silences(module: Module) -> Iterator[Finding]:
    """Forbid an `except` whose body is `pass`: an error is answered, not swallowed."""
    for node in module.nodes:
        if isinstance(node, ast.ExceptHandler) and all(isinstance(line, ast.Pass) for line in node.body):
            text = "an except that only passes: say what happens instead, or use suppress() for a named one"
            yield module.path, node.lineno, text


def tree_texts(module: Module) -> Iterator[Finding]:
    """Forbid `.text` of a tree-sitter node: the bytes behind it may be freed, and reading them crashes the process."""
    if any(isinstance(node, ast.ImportFrom) and node.module == "tree_sitter" for node in module.nodes):
        for node in module.nodes:
            if isinstance(node, ast.Attribute) and node.attr == "text":
                yield module.path, node.lineno, f"{ast.unparse(node)}: cut the text out of the parsed bytes"


def openings(module: Module) -> Iterator[Finding]:
    """Require a docstring that says what lives in a module, a name that says something, and a limited size."""
    if not ast.get_docstring(module.tree):
        yield module.path, 1, "no docstring: say in one sentence what lives here"
    if module.path.stem in NAMELESS:
        yield module.path, 1, f"a module named {module.path.stem} says nothing"
    lines = len(module.text.splitlines())
    if lines > MOST_LINES:
        yield module.path, 1, f"{lines} lines, {MOST_LINES} at most: it wants to be two"


def private_words(module: Module) -> Iterator[Finding]:
    """Forbid words that only the authors of this project understand."""
    for number, line in enumerate(module.text.splitlines(), 1):
        if found := PRIVATE_WORDS.search(line):
            yield module.path, number, f"{found[0]!r} is a private word: use the one of docs/glossary.md"


def class_names(modules: Sequence[Module]) -> Iterator[Finding]:
    """Forbid two public classes of one name: a name means one thing in the whole package."""
    seen: dict[str, Module] = {}
    for module in modules:
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                first = seen.setdefault(node.name, module)
                if first is not module:
                    yield module.path, node.lineno, f"class {node.name} is also in {first.name}: name one otherwise"


def constants(modules: Sequence[Module]) -> Iterator[Finding]:
    """Forbid two values for the name of a public constant: a reader who knows one would misread the other."""
    seen: dict[str, tuple[Module, str]] = {}
    for module in modules:
        for name, line, value in _constants(module.tree):
            first, other = seen.setdefault(name, (module, value))
            if other != value:
                yield module.path, line, f"{name} has another value in {first.name}: name one otherwise"


def _constants(tree: ast.Module) -> Iterator[tuple[str, int, str]]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        # another name as the value gives a constant a second place, not a second value
        if isinstance(value, ast.expr) and not isinstance(value, ast.Name | ast.Attribute):
            for target in targets:
                if isinstance(target, ast.Name) and CONSTANT.fullmatch(target.id):
                    yield target.id, node.lineno, ast.unparse(value)


def siblings(modules: Sequence[Module]) -> Iterator[Finding]:
    """Forbid two names in a folder that differ by an ending (run/runs, index/indexing): nobody remembers which is which."""
    folders: dict[Path, dict[str, Module]] = defaultdict(dict)
    for module in modules:
        folder, name = module.place
        folders[folder][name] = module
    for names in folders.values():
        for short, long in permutations(names, 2):
            ending = long.removeprefix(short)
            if ending != long and ending.isalpha() and len(ending) <= MOST_ENDING:
                yield names[long].path, 1, f"{long} and {short} beside each other: name one by what only it does"


RULES: tuple[Callable[[Module], Iterator[Finding]], ...] = (
    commits, connections, statements, late_filters, session_locks, tasks, clocks, pickles, silences, tree_texts, openings,
    private_words,
)  # fmt: skip
TEST_RULES: tuple[Callable[[Module], Iterator[Finding]], ...] = (stopwatches, hurries)
PACKAGE_RULES: tuple[Callable[[Sequence[Module]], Iterator[Finding]], ...] = (class_names, constants, siblings)


def findings_in_tests(paths: Sequence[Path]) -> list[Finding]:
    """Return what the rules of tests find."""
    modules = [Module(path, path.read_text()) for path in paths]
    return [found for module in modules for rule in TEST_RULES for found in rule(module)]


def findings(paths: Sequence[Path]) -> list[Finding]:
    """Return what every rule finds, in each file alone and in all of them together."""
    modules = [Module(path, path.read_text()) for path in paths]
    alone = [found for module in modules for rule in RULES for found in rule(module)]
    return alone + [found for rule in PACKAGE_RULES for found in rule(modules)]


def main() -> int:
    """Print what is wrong; return 1 if anything is."""
    found = findings(sorted(PACKAGE.rglob("*.py"))) + findings_in_tests(sorted(TESTS.rglob("*.py")))
    for path, line, text in found:
        print(f"{path.relative_to(ROOT)}:{line}: {text}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
