"""Definitions, their names and the blocks inside, in every language that has a grammar."""

from itertools import pairwise
from sys import getrefcount

import pytest

from evervec.sources.structure import blocks, title
from evervec.sources.structure.grammars import GRAMMARS

SAMPLES = {
    "python": (
        "import a\n\n\n@deco\nclass Task(Base):\n    '''Doc.'''\n\n    def cancel(self):\n        return 1\n",
        ["", "Task", "Task.cancel"],
    ),
    "javascript": (
        "import x from 'y';\n\n/** Doc. */\nexport default class Task {\n  a = 1;\n\n  cancel() {}\n}\n\n"
        "export const run = () => {};\n\nexports.stop = function () {};\n\nconst limit = 3;\n",
        ["", "Task", "Task.cancel", "run", "exports.stop", ""],
    ),
    "typescript": (
        "import x from 'y';\n\nexport interface Job { a: string }\n\nnamespace inner {\n  export function run() {}\n}\n",
        ["", "Job", "inner.run"],
    ),
    "tsx": ("import x from 'y';\n\nexport function View() { return <p>hi</p>; }\n", ["", "View"]),
    "go": (
        "package a\n\n// Task is.\ntype Task struct {\n\ta int\n}\n\n// Cancel does.\nfunc (t *Task) Cancel() {}\n\nfunc Run() {}\n",
        ["", "Task", "Task.Cancel", "Run"],
    ),
    "rust": (
        "use a;\n\n/// Doc.\n#[derive(Debug)]\npub struct Task { a: u8 }\n\nimpl Drop for Task {\n    fn drop(&mut self) {}\n}\n",
        ["", "Task", "Task.drop"],
    ),
    "java": (
        "package a;\n\n/** Doc. */\n@A\npublic class Task {\n  int a;\n\n  /** Doc. */\n  void cancel() {}\n}\n",
        ["", "Task", "Task.cancel"],
    ),
    "c": (
        "#ifndef A\n#define A\n\n/* Doc. */\nstatic char *cancel(int a) {\n  return 0;\n}\n\nstruct task { int a; };\n\nint x(void);\n#endif\n",
        ["", "cancel", "task", ""],
    ),
    "cpp": (
        "#include <a>\n\nnamespace q {\ntemplate <class T>\nclass Task {\n  void cancel() {}\n};\n}\n\nvoid Task::run() {}\n",
        ["", "q.Task", "q.Task.cancel", "Task.run"],
    ),
    "csharp": (
        "using A;\n\nnamespace Q {\n  /// Doc.\n  [Attr]\n  public class Task {\n    int a;\n    public void Cancel() {}\n  }\n}\n",
        ["", "Q.Task", "Q.Task.Cancel"],
    ),
    "ruby": (
        "require 'a'\n\nmodule Q\n  class Task\n    attr :a\n\n    # Doc.\n    def cancel; end\n\n    def self.run; end\n  end\nend\n",
        ["", "Q.Task", "Q.Task.cancel", "Q.Task.run"],
    ),
    "php": (
        "<?php\nnamespace A\\B;\n\n/** Doc. */\nclass Task {\n  public $a;\n  public function cancel() {}\n}\n",
        ["", "Task", "Task.cancel"],
    ),
    "bash": ("set -e\n\n# Doc.\ncancel() {\n  echo 1\n}\n\ncancel\n", ["", "cancel", ""]),
    "kotlin": (
        "package a\n\n/** Doc. */\nclass Task(val a: Int) {\n    val b = 1\n\n    fun cancel(): Int {\n        return 1\n    }\n}\n",
        ["", "Task", "Task.cancel"],
    ),
    "swift": (
        "import A\n\n/// Doc.\nclass Task {\n  var a = 1\n\n  func cancel() {}\n\n  init() {}\n}\n",
        ["", "Task", "Task.cancel", "Task.init"],
    ),
    "scala": (
        "package a\n\n/** Doc. */\nclass Task(a: Int) {\n  val b = 1\n\n  def cancel(): Int = {\n    1\n  }\n}\n",
        ["", "Task", "Task.cancel"],
    ),
}


def seen(text: str, form: str = "python") -> list[tuple[str, str, str]]:
    found = blocks(text, form)
    bounds = pairwise([0, *(block.end for block in found)])
    return [(block.cut.name, block.heading, text[a:b]) for block, (a, b) in zip(found, bounds, strict=True)]


def test_every_language_has_a_sample() -> None:
    assert SAMPLES.keys() == GRAMMARS.keys()


@pytest.mark.parametrize("language", SAMPLES)
def test_each_definition_is_a_section_with_its_name_and_its_comments(language: str) -> None:
    text, headings = SAMPLES[language]
    found = seen(text, language)
    assert [heading for cut, heading, _ in found if cut == "SECTION"] == headings
    for _, _, part in found:
        assert not part.rstrip().endswith(("Doc.", "/** Doc. */", "/* Doc. */", "[Attr]", "@A", "@deco"))


@pytest.mark.parametrize("language", SAMPLES)
def test_every_node_type_in_the_table_exists(language: str) -> None:
    grammar = GRAMMARS[language]
    known = {grammar.language.node_kind_for_id(at) for at in range(grammar.language.node_kind_count)}
    words = set().union(*grammar.kinds) - {"ERROR", "field_definition", "public_field_definition"}
    assert words <= known


def test_a_module_is_its_docstring_and_the_rest() -> None:
    text = '#!/bin/sh\n"""Tasks.\n\nMore."""\n\nimport a\n\nLIMIT = 3\n\n\ndef run():\n    pass\n\n\nrun()\n'
    assert title(text, "python") == "Tasks."
    assert seen(text) == [
        ("SECTION", "", '#!/bin/sh\n"""Tasks.\n\nMore."""\n\n'),
        ("SECTION", "", "import a\n\n"),
        ("PARAGRAPH", "", "LIMIT = 3\n\n\n"),
        ("SECTION", "run", "def run():\n    pass\n\n\n"),
        ("SECTION", "", "run()\n"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("'''\n  First line.\n\nMore.\n'''\n", "First line."),
        ("# -*- coding -*-\n\nr'One.'\n", "One."),
        ("import a\n", ""),
        ("", ""),
        ("'unclosed", ""),
        ('""" """', ""),
    ],
)
def test_the_title_of_a_module_is_the_first_line_of_its_docstring(text: str, said: str) -> None:
    assert title(text, "python") == said


def test_the_docstring_of_a_large_function_stands_with_its_signature_and_apart_from_its_body() -> None:
    statements = "".join(f"    value_{at} = compute({at})\n" for at in range(20))
    text = f'def run(\n    a,\n):\n    """Run it.\n\n    At once.\n    """\n{statements}\n    return 1\n'
    found = seen(text)
    assert found[0] == ("SECTION", "run", 'def run(\n    a,\n):\n    """Run it.\n\n    At once.\n    """\n')
    assert found[1] == ("SECTION", "run", "    value_0 = compute(0)\n")
    assert [cut for cut, _, _ in found[2:]] == [*["LINE"] * 19, "PARAGRAPH"]


def test_the_docstring_of_a_class_stands_with_its_head_and_is_a_good_place_for_a_cut() -> None:
    found = seen('class A(B):\n    """Doc.\n\n    More.\n    """\n\n    x = 1\n    y = 2\n\n    def b(self): ...\n')
    assert [(cut, heading) for cut, heading, _ in found] == [
        ("SECTION", "A"),
        ("PART", "A"),
        ("LINE", "A"),
        ("SECTION", "A.b"),
    ]


def test_a_class_with_nothing_above_its_first_method_is_no_section() -> None:
    assert seen("class A:\n    def b(self): ...\n\n    def c(self): ...\n") == [
        ("SECTION", "A.b", "class A:\n"),
        ("PART", "A.b", "    def b(self): ...\n\n"),
        ("SECTION", "A.c", "    def c(self): ...\n"),
    ]


def test_functions_inside_functions_and_large_statements_are_blocks_and_weaker_inside() -> None:
    lines = "".join(f"            call_{at}(1)\n" for at in range(60))
    text = f"def run():\n    a = 1\n\n    def inner():\n        if a:\n{lines}        return 2\n\n    return inner\n"
    found = seen(text)
    assert {heading for _, heading, _ in found} == {"run"}
    assert [part.split("\n")[0] for cut, _, part in found if cut == "PARAGRAPH"] == [
        "    def inner():",
        "    return inner",
    ]
    assert sum(cut in ("SENTENCE", "WORD") for cut, _, _ in found) >= 59


def test_a_comment_below_a_blank_line_belongs_to_what_follows_and_a_trailing_one_does_not() -> None:
    found = seen("a = 1  # one\n# about b\ndef b(): ...\n# still b\n\n# about c\n@d\ndef c(): ...\n")
    assert [part for _, _, part in found] == [
        "a = 1  # one\n",
        "# about b\ndef b(): ...\n# still b\n\n",
        "# about c\n@d\ndef c(): ...\n",
    ]


def test_definitions_below_a_condition_are_found() -> None:
    text = "try:\n    import a\nexcept ImportError:\n    def a(): ...\nelse:\n    x = 1\n"
    assert [heading for _, heading, _ in seen(text)][-3:] == ["a", "a", ""]


def test_what_does_not_parse_keeps_the_definitions_around_it() -> None:
    found = seen("def a():\n    return 1\n\n\nx = = (\n\n\ndef b():\n    return 2\n")
    assert {"a", "b"} <= {heading for _, heading, _ in found}


def test_packed_code_is_cut_between_its_statements() -> None:
    text = "".join(f"function f{at}(a){{return a+{at}}}var v{at}=[{at}];" for at in range(50))
    found = seen(text, "javascript")
    assert len(found) == 100
    assert found[2] == ("SECTION", "f1", "function f1(a){return a+1}")


def test_a_file_that_is_no_code_is_plain() -> None:
    assert {heading for _, heading, _ in seen("def a(): ...\n" * 5_000)} == {""}
    assert {heading for _, heading, _ in seen("def a(): ...\n" * 3)} == {"a"}


def test_a_text_that_was_parsed_is_not_kept() -> None:
    data = SAMPLES["python"][0].encode()
    held = getrefcount(data)
    for _ in range(3):
        GRAMMARS["python"].parse(data)
    assert getrefcount(data) == held
