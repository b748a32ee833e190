"""Tests: they mirror the three packages; integration/ and benchmarks/ stand beside them."""

from ticker.kernel_cache import use_kernel_cache

use_kernel_cache()  # before anything imports numba
