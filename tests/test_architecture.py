"""The layers of the package, as a table that the imports are checked against.

Each rule is a function from a package's folder to the list of its violations, so that the same
rules judge the package and, further down, small packages that break them on purpose.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

NAME = "scvi_sctab"
PACKAGE = Path(__file__).parents[1] / "src" / NAME

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
DRAWERS = {"utils", "core"}


@dataclass(frozen=True)
class Layer:
    """What a layer may import of ours, and what of others it must stay free of."""

    may_import: tuple[str, ...] = ()
    free_of: tuple[str, ...] = ()
    may_annotate_with: tuple[str, ...] = ()


LAYERS = {
    "nn": Layer(free_of=("scvi", "anndata", "lightning", "pandas")),
    "ontology": Layer(free_of=("torch", "scvi")),
    "datasets": Layer(free_of=("torch", "scvi", "lightning", "matplotlib")),
    "data": Layer(("nn._transforms", "nn._parallel", "nn._csr_kernels"), free_of=("matplotlib",)),
    "metrics": Layer(("ontology",), free_of=("scvi", "matplotlib")),
    "module": Layer(("nn",), free_of=("anndata",)),
    "train": Layer(("nn", "module", "metrics")),
    "base": Layer(("nn", "data", "module", "train"), free_of=("matplotlib",)),
    "annotation": Layer(("metrics", "ontology"), free_of=("scvi", "anndata", "matplotlib")),
    "explanation": Layer(("nn", "data", "metrics"), free_of=("matplotlib",)),
    "model": Layer(
        (
            *("nn", "data", "ontology", "metrics", "module", "train"),
            *("base", "annotation", "explanation"),
        )
    ),
    "pretrain": Layer(("nn", "data", "module", "train", "base")),
    "external": Layer(("nn", "data", "module", "train", "base")),
    "baselines": Layer(("data", "model")),
    "plotting": Layer(("ontology",), free_of=("torch", "scvi")),
}
ROOT = "the package itself"
LAYERS["cli"] = Layer((ROOT, *LAYERS))

# Folders inside a layer are the exception, so each is written down.
NESTED = {"data/datamodules", "external/protein", "external/svae", "external/scdtl"}

# Importable from every layer, hence free of whatever any layer must be free of. The protocols
# describe the layers, so they may name what `nn` returns; when the program runs, nobody imports it.
BANNED_ANYWHERE = tuple({library for layer in LAYERS.values() for library in layer.free_of})
SHARED = {
    "_config": Layer(free_of=BANNED_ANYWHERE),
    "_constants": Layer(free_of=BANNED_ANYWHERE),
    "_logging": Layer(free_of=BANNED_ANYWHERE),
    "_optional": Layer(free_of=BANNED_ANYWHERE),
    "_types": Layer(free_of=BANNED_ANYWHERE, may_annotate_with=("nn",)),
}

# The same library under its other name.
ALIASES = {"pytorch_lightning": "lightning"}


def python_files(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py"))


def folders(package: Path) -> list[Path]:
    """Folders that hold code, at any depth."""
    return sorted({path.parent for path in python_files(package)} - {package})


def imports(tree: ast.AST, typing_only: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """Import statements at any depth, and whether only a type checker sees them."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, typing_only
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from imports(ast.Module(node.body, []), typing_only=True)
            yield from imports(ast.Module(node.orelse, []), typing_only)
        else:
            yield from imports(node, typing_only)


def modules_named(node: ast.stmt, package: Path) -> Iterator[str]:
    """Dotted names of the modules that an import statement reaches."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif node.level == 0:
        for alias in node.names:
            yield defining_module(package, node.module, alias.name)


def defining_module(package: Path, module: str, name: str) -> str:
    """Where ``from module import name`` leads, through the re-exports of our own packages."""
    folder = package.joinpath(*module.split(".")[1:])
    if module.split(".")[0] != NAME or not folder.is_dir():
        return module
    if (folder / name).is_dir() or (folder / f"{name}.py").is_file():
        return f"{module}.{name}"
    init = folder / "__init__.py"
    for node in ast.parse(init.read_text()).body if folder != package and init.is_file() else []:
        if isinstance(node, ast.ImportFrom) and name in {a.asname or a.name for a in node.names}:
            return node.module
    return module


def governed_files(package: Path) -> Iterator[tuple[Path, str, Layer]]:
    """Files that the tables speak of; ``__init__.py`` of the package may import everything."""
    declared = LAYERS | SHARED
    for path in python_files(package):
        first = path.relative_to(package).parts[0].removesuffix(".py")
        if first in declared:
            yield path, first, declared[first]


def imports_against_the_arrows(package: Path) -> list[str]:
    found = []
    for path, own, layer in governed_files(package):
        always = (own, *layer.may_import, *SHARED)
        for node, typing_only in imports(ast.parse(path.read_text())):
            allowed = (*always, *layer.may_annotate_with) if typing_only else always
            for module in modules_named(node, package):
                top, _, inner = module.partition(".")
                inner = inner or ROOT
                if top == NAME and not any(f"{inner}.".startswith(f"{a}.") for a in allowed):
                    found.append(f"{path}:{node.lineno}: {own} must not import {inner}")
    return found


def banned_libraries(package: Path) -> list[str]:
    found = []
    for path, own, layer in governed_files(package):
        for node, typing_only in imports(ast.parse(path.read_text())):
            for module in modules_named(node, package):
                library = ALIASES.get(module.split(".")[0], module.split(".")[0])
                if library in layer.free_of and not typing_only:
                    found.append(f"{path}:{node.lineno}: {own} must stay free of {library}")
    return found


def relative_imports(package: Path) -> list[str]:
    return [
        f"{path}:{node.lineno}: relative import"
        for path in python_files(package)
        for node, _ in imports(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]


def long_files(package: Path) -> list[str]:
    lengths = {path: len(path.read_text().splitlines()) for path in python_files(package)}
    return [f"{path}: {n} lines" for path, n in lengths.items() if n > MAX_FILE_LINES]


def long_functions(package: Path) -> list[str]:
    return [
        f"{path}:{node.lineno}: {node.name} has {code_lines(node)} lines"
        for path in python_files(package)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and code_lines(node) > MAX_FUNCTION_LINES
    ]


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end but for the docstring, which no limit should cut short."""
    length = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node) is None:
        return length
    return length - (node.body[0].end_lineno - node.body[0].lineno + 1)


def drawers(package: Path) -> list[str]:
    return [f"{folder}: a drawer" for folder in folders(package) if folder.name in DRAWERS]


def undeclared_places(package: Path) -> list[str]:
    files = {path.stem for path in package.glob("*.py")} - {"__init__", *SHARED}
    names = {folder.relative_to(package).as_posix() for folder in folders(package)}
    return [f"{name}: not in the table" for name in sorted(files | names - {*LAYERS, *NESTED})]


RULES = (
    imports_against_the_arrows,
    banned_libraries,
    relative_imports,
    long_files,
    long_functions,
    drawers,
    undeclared_places,
)


@pytest.mark.parametrize("rule", [pytest.param(r, id=f"no_{r.__name__}") for r in RULES])
def test_the_package_has(rule):
    assert rule(PACKAGE) == []


def test_the_package_is_where_the_rules_look():
    assert {path.name for path in PACKAGE.iterdir()} >= {"__init__.py", "nn"}


def test_the_arrows_of_the_table_form_no_circle():
    graph = {name: {a.split(".")[0] for a in layer.may_import} for name, layer in LAYERS.items()}
    assert {*TopologicalSorter(graph).static_order()} == {*LAYERS, ROOT}


def write_package(folder: Path, files: dict[str, str]) -> Path:
    package = folder / NAME
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


NN = {
    "nn/__init__.py": f"from {NAME}.nn._transforms import augment\nfrom {NAME}.nn._net import Net\n",
    "nn/_transforms.py": "def augment(): ...\n",
    "nn/_net.py": "class Net: ...\n",
}

VIOLATIONS = {
    "a_layer_that_imports_one_above_it": (
        imports_against_the_arrows,
        {"nn/_a.py": f"from {NAME}.model import SCTAB\n"},
        "_a.py:1: nn must not import model",
    ),
    "an_upward_import_inside_a_function": (
        imports_against_the_arrows,
        {"model/_a.py": f"def f():\n    import {NAME}.baselines._linear\n"},
        "_a.py:2: model must not import baselines._linear",
    ),
    "an_upward_import_for_annotations": (
        imports_against_the_arrows,
        {"nn/_a.py": f"if typing.TYPE_CHECKING:\n    from {NAME} import data\n", "data/_b.py": ""},
        "_a.py:2: nn must not import data",
    ),
    "a_layer_whose_name_begins_like_an_allowed_one": (
        imports_against_the_arrows,
        {"module/_a.py": f"import {NAME}.nnx\n"},
        "_a.py:1: module must not import nnx",
    ),
    "data_that_reaches_a_network_by_its_public_name": (
        imports_against_the_arrows,
        NN | {"data/_a.py": f"from {NAME}.nn import Net\n"},
        "_a.py:1: data must not import nn._net",
    ),
    "the_whole_package_imported_for_one_name": (
        imports_against_the_arrows,
        {
            "__init__.py": f"from {NAME}.model import SCTAB\n",
            "baselines/_a.py": f"from {NAME} import SCTAB\n",
        },
        f"_a.py:1: baselines must not import {ROOT}",
    ),
    "a_shared_file_that_imports_a_layer": (
        imports_against_the_arrows,
        {"_types.py": f"from {NAME}.nn import TabNet\n"},
        "_types.py:1: _types must not import nn",
    ),
    "a_banned_library": (
        banned_libraries,
        {"nn/_a.py": "import pandas as pd\n"},
        "_a.py:1: nn must stay free of pandas",
    ),
    "a_banned_library_in_a_nested_folder": (
        banned_libraries,
        {"data/datamodules/_a.py": "from matplotlib.axes import Axes\n"},
        "_a.py:1: data must stay free of matplotlib",
    ),
    "a_banned_library_imported_late": (
        banned_libraries,
        {"plotting/_a.py": "class A:\n    def f(self):\n        from torch import nn\n"},
        "_a.py:3: plotting must stay free of torch",
    ),
    "a_banned_library_by_its_other_name": (
        banned_libraries,
        {"nn/_a.py": "from pytorch_lightning import Trainer\n"},
        "_a.py:1: nn must stay free of lightning",
    ),
    "a_banned_library_in_the_else_of_a_type_checking_block": (
        banned_libraries,
        {"nn/_a.py": "if TYPE_CHECKING:\n    A = 1\nelse:\n    import scvi\n"},
        "_a.py:4: nn must stay free of scvi",
    ),
    "a_shared_file_with_a_library_banned_anywhere": (
        banned_libraries,
        {"_config.py": "import torch\n"},
        "_config.py:1: _config must stay free of torch",
    ),
    "a_relative_import": (relative_imports, {"nn/_a.py": "from . import _b\n"}, "_a.py:1"),
    "a_long_file": (long_files, {"nn/_a.py": "a = 1\n" * 501}, "_a.py: 501 lines"),
    "a_long_method": (
        long_functions,
        {"nn/_a.py": "class A:\n    def f(self):\n" + "        a = 1\n" * 60},
        "_a.py:2: f has 61 lines",
    ),
    "a_drawer": (drawers, {"data/utils/_a.py": ""}, "utils: a drawer"),
    "a_new_layer": (undeclared_places, {"hub/_a.py": ""}, "hub: not in the table"),
    "a_new_folder_in_a_layer": (
        undeclared_places,
        {"nn/blocks/_a.py": ""},
        "nn/blocks: not in the table",
    ),
    "a_new_file_beside_the_layers": (
        undeclared_places,
        {"_helpers.py": ""},
        "_helpers: not in the table",
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_the_rules_catch(name, tmp_path):
    rule, files, expected = VIOLATIONS[name]
    found = rule(write_package(tmp_path, files))
    assert [expected in line for line in found] == [True], found


ALLOWED = {
    "protocols_annotated_with_a_result_of_nn": {
        "_types.py": f"if TYPE_CHECKING:\n    from {NAME}.nn import Net\n"
    },
    "imports_of_shared_files_and_of_siblings": {
        "nn/_a.py": f"from {NAME}._config import TABNET\nfrom {NAME}.nn._net import Net\n"
    },
    "transforms_in_data_by_their_public_name": {
        "data/_a.py": f"from {NAME}.nn import augment\n",
        "data/_b.py": f"from {NAME}.nn._transforms import augment\n",
    },
    "annotations_with_a_banned_library": {
        "nn/_a.py": "if TYPE_CHECKING:\n    import pandas as pd\n"
    },
    "libraries_whose_name_begins_like_a_banned_one": {"nn/_a.py": "import scvi_other\n"},
    "a_command_that_uses_the_public_names": {"cli/_a.py": f"from {NAME} import SCTAB\n"},
    "a_file_and_a_function_at_their_limits": {
        "nn/_a.py": "def f():\n" + "    a = 1\n" * 59 + "a = 1\n" * 440
    },
    "a_function_with_a_long_docstring": {
        "nn/_a.py": 'def f():\n    """One.\n' + "\n" * 80 + '    """\n' + "    a = 1\n" * 59
    },
}


@pytest.mark.parametrize("name", ALLOWED)
def test_the_rules_let_pass(name, tmp_path):
    package = write_package(tmp_path, NN | ALLOWED[name])
    assert [line for rule in RULES for line in rule(package)] == []
