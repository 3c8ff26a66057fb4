"""Generates the stubs (package starling.v1, beside this file) from schemas/proto."""

import importlib.resources
import pathlib
import sys

from grpc_tools import protoc

here = pathlib.Path(__file__).resolve().parent
protos = here.parents[1] / "schemas" / "proto"
files = sorted(str(p) for p in (protos / "starling" / "v1").glob("*.proto"))
code = protoc.main([
    "protoc", f"--proto_path={protos}", f"--proto_path={importlib.resources.files('grpc_tools') / '_proto'}",
    f"--python_out={here}", f"--pyi_out={here}", f"--grpc_python_out={here}", *files,
])
sys.exit(code)
