"""One thread everywhere: figures are compared, and two cores are shared."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("NO_COLOR", "1")
sys.path.insert(0, str(Path(__file__).parent))
