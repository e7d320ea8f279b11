"""Entry points: the built-in plugins and a stranger's, found in the same way."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fovea import registry
from fovea.errors import PluginError


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Lay a package with entry points beside the installed ones, as a stranger's wheel would."""

    def lay(name, group, points, **modules):
        root = tmp_path / name
        info = root / f"{name}-0.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(
            "\n".join([f"[{group}]", *(f"{k} = {v}" for k, v in points.items())]) + "\n"
        )
        for module, code in modules.items():
            (root / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(str(root))

    return lay


def test_built_in_plugins_are_entry_points_of_fovea():
    domains, experts = registry.plugins("fovea.domains"), registry.plugins("fovea.experts")
    assert {"radiology", "remote_sensing"} <= set(domains)
    assert {"segmentation", "classification"} <= set(experts)
    assert all(p.origin == "fovea" and not p.lacks for p in (*domains.values(), *experts.values()))
    assert registry.domain("radiology").name == "radiology"


def test_a_strangers_plugin_is_found(install):
    install("one", "fovea.domains", {"garden": "garden_one:make"}, garden_one="make = lambda: 'a garden'\n")
    assert registry.plugins("fovea.domains")["garden"].origin == "one"
    assert registry.domain("garden") == "a garden"


def test_two_plugins_of_one_name_are_an_error_that_names_both(install):
    install("two", "fovea.domains", {"field": "field_two:make"}, field_two="make = dict\n")
    install("three", "fovea.domains", {"field": "field_three:make"}, field_three="make = dict\n")
    for look in (lambda: registry.plugins("fovea.domains"), lambda: registry.domain("field")):
        with pytest.raises(PluginError) as error:
            look()
        assert "field_two:make" in str(error.value)
        assert "field_three:make" in str(error.value)


def test_a_missing_package_is_listed_with_what_to_install(install):
    install("four", "fovea.experts", {"radar": "radar_four:make"}, radar_four="import antenna_toolbox\n")
    plugin = registry.plugins("fovea.experts")["radar"]
    assert plugin.value is None
    assert "antenna_toolbox" in plugin.lacks
    assert not registry.plugins("fovea.experts")["segmentation"].lacks
    with pytest.raises(PluginError, match="antenna_toolbox"):
        registry.expert_kind("radar")


_NEEDY = """
from __future__ import annotations
import json, {inner}
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import only_for_types
try:
    import nice_to_have
except ImportError:
    nice_to_have = None
def make():
    try:
        import needed_when_opened
    except ImportError as error:
        raise RuntimeError("no") from error
raise SystemExit("a listing runs nothing")
"""


def test_a_listing_says_what_is_lacking_and_runs_nothing(install):
    install("five", "fovea.experts", {"sonar": "sonar_five:make"}, sonar_five=_NEEDY.format(inner="csv"))
    install("six", "fovea.experts", {"lidar": "lidar_six:make"}, lidar_six=_NEEDY.format(inner="point_toolbox.core"))
    install("seven", "fovea.experts", {"gone": "gone_seven:make"})
    listed = registry.listed("fovea.experts")
    assert listed["sonar"].lacks == "needs needed_when_opened: install it beside five"
    assert listed["lidar"].lacks == "needs point_toolbox: install it beside six"
    assert listed["gone"].lacks == "needs gone_seven: install it beside seven"
    assert listed["segmentation"] == registry.Plugin("segmentation", "fovea")


def test_a_package_that_a_kind_needs_is_missed_without_loading_it():
    code = (
        "import sys; from importlib import util; find = util.find_spec; from fovea import registry\n"
        "registry.find_spec = lambda name: None if name in ('torchxrayvision', 'mcp') else find(name)\n"
        "print(*(n for n, p in registry.listed('fovea.experts').items() if p.lacks))\n"
        "print(*(name for name in ('torch', 'monai', 'experts', 'numpy.random') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "mcp torchxrayvision\n\n"


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(PluginError, match="Did you mean 'radiology'"):
        registry.domain("radiolgy")
    with pytest.raises(PluginError, match="segmentation"):
        registry.expert_kind("zzz")
