"""What starts kernels elsewhere: the seam, for launchers of your own, and those that are here.

It may import what the rooms below hand out; it knows no server and no pool. A newcomer begins with `Launcher`.
"""

from .._local import LaunchedProcess, Launcher, LaunchOrder, ProvisionerLauncher
from .dask import DaskLauncher

__all__ = ["DaskLauncher", "LaunchOrder", "LaunchedProcess", "Launcher", "ProvisionerLauncher"]

for _exported in (DaskLauncher, LaunchOrder, LaunchedProcess, Launcher, ProvisionerLauncher):
    _exported.__module__ = __name__
