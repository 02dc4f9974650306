"""One role of Cosmos-RL, as its environment says, on a machine without a GPU: `role.py MODULE`."""

import os
import runpy
import sys

from stubs import install_cuda, install_packages

module = sys.argv.pop(1)
install_packages()
if os.environ.get("COSMOS_ROLE") != "Controller":
    install_cuda()
runpy.run_module(module, run_name="__main__", alter_sys=True)
