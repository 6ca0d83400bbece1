"""Other people's programs for the page: the check of accessibility, and the official host of MCP Apps.

They are npm packages, locked beside the suites of the MCP server and installed by ``make test-browser``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
MODULES: Final = _ROOT / "obs_pipeline_tests" / "mcp_suites" / "node_modules"
BUILDER: Final = _ROOT / "widget" / "node_modules" / "vite" / "dist" / "node" / "index.js"
AXE: Final = MODULES / "axe-core" / "axe.min.js"
APPS: Final = MODULES / "@modelcontextprotocol" / "ext-apps"
MISSING: Final = "the npm packages are not installed: make test-browser"
