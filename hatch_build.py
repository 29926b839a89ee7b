"""The build hook of the packages: tracked files alone in the source archive, the migrations inside the wheel."""

import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Contents(BuildHookInterface[Any]):
    """What goes into a package, beside what pyproject.toml says."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Choose the files before hatchling collects them."""
        if self.target_name == "sdist":
            self._take_tracked_files()
        elif version == "standard":  # an editable install finds them in the checkout
            build_data["force_include"]["alembic"] = "evervec/alembic_scripts"

    def _take_tracked_files(self) -> None:
        """Outside of a git checkout, as in an unpacked source archive, all files are taken."""
        if (Path(self.root) / ".git").exists():
            listed = subprocess.run(
                ["git", "ls-files", "-z"], cwd=self.root, capture_output=True, text=True, check=True
            )
            names = [name for name in listed.stdout.split("\0") if name and (Path(self.root) / name).is_file()]
            self.build_config.target_config["only-include"] = names
