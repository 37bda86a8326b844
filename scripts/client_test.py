#!/usr/bin/env python3
"""Tests that the clients of API generators work.

Generates the clients from /openapi.json, compiles or imports them, and runs the scenario of scripts/clients with each
of them against a private server (target/debug/testshop). The generators come from PyPI and npm, in the versions of
pyproject.toml and scripts/clients/package-lock.json, with a private Java and Node.js. Everything that is generated is
in target/client-test.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

from services import InstallError, install_tools, pinned_packages
from test_server import HERE, PASSWORD, ROOT, rerun_with_services, running_server

SOURCES = HERE / "clients"
WORK = ROOT / "target/client-test"
PRODUCTS = 200
# what every client observes in the scenario: statuses, keys of error bodies, and data
EXPECTED = {
    "register": 201,
    "register again": [400, "email", "username"],
    "log in with a wrong password": [401, "detail"],
    "list without a token": [401, "detail"],
    "create": [201, True, 19.99, ["new", "steel"]],
    "create in an unknown category": [400, "category_name"],
    "list with filters": [True],
    "follow pages": [90, 90, 21],
    "patch with If-Match": [200, 17.5],
    "patch with an old If-Match": [412, "detail"],
    "get an unknown product": [404, "detail"],
    "export": True,
    # created, updated, unchanged, skipped, errors
    "import the export": [0, 0, PRODUCTS + 1, 0, 0],
    "import no table": [400, "detail"],
    "delete": 204,
}
PYTHON_PACKAGES = "generated/python"
IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
"""


@dataclass
class Client:
    """A generated client: the commands that generate it, compile or import it, and run the scenario with it."""

    name: str
    generator: str
    generate: list[str]
    compile: list[str]
    run: list[str]


def python_client(generator: str, module: str, *generate: str) -> Client:
    imports, scenario = ["python", "-c", IMPORT_ALL, f"{module}_shop"], ["python", str(SOURCES / f"{module}.py")]
    return Client(f"{generator} (Python)", generator, [*generate], imports, scenario)


def typescript_client(name: str, generator: str, *generate: str) -> Client:
    compilation, scenario = ["tsc", "--project", f"{name}.json"], ["node", f"compiled/{name}/{name}.js"]
    return Client(f"{name} (TypeScript)", generator, [*generate], compilation, scenario)


PYTHON_CLIENTS = [
    python_client(
        "openapi-generator-cli", "openapi_generator",
        "openapi-generator-cli", "generate", "--input-spec", "openapi.json", "--generator-name", "python",
        "--package-name", "openapi_generator_shop", "--output", PYTHON_PACKAGES,
    ),
    python_client(
        "openapi-python-client", "openapi_python_client",
        "openapi-python-client", "generate", "--path", "openapi.json", "--meta", "none",
        "--output-path", f"{PYTHON_PACKAGES}/openapi_python_client_shop",
    ),
]  # fmt: skip
TYPESCRIPT_CLIENTS = [
    typescript_client(
        "openapi-generator", "openapi-generator-cli",
        "openapi-generator-cli", "generate", "--input-spec", "openapi.json", "--generator-name", "typescript-fetch",
        "--output", "generated/openapi-generator",
        "--additional-properties", "modelPropertyNaming=original,paramNaming=original",
    ),
    typescript_client(
        "openapi-fetch", "openapi-typescript",
        "openapi-typescript", "openapi.json", "--output", "generated/openapi-fetch.ts",
    ),
    typescript_client(
        "hey-api", "@hey-api/openapi-ts",
        "openapi-ts", "--input", "openapi.json", "--output", "generated/hey-api", "--client", "@hey-api/client-fetch",
    ),
    typescript_client(
        "orval", "orval",
        "orval", "--input", "openapi.json", "--output", "generated/orval.ts", "--client", "fetch",
    ),
]  # fmt: skip


def pinned_versions() -> dict[str, str]:
    """Returns the versions of the generators, by package."""
    npm: dict[str, str] = json.loads((SOURCES / "package.json").read_text())["dependencies"]
    pypi = (requirement.split("==") for requirement in pinned_packages("client-test"))
    return {**npm, **{name.split("[")[0]: version for name, version in pypi}}


def install_npm_packages(environment: dict[str, str]) -> bool:
    """Installs the packages of the lock file and returns whether this succeeded. Installed ones are reused."""
    lock, installed = (SOURCES / "package-lock.json").read_bytes(), WORK / "package-lock.json"
    marker = WORK / "node_modules/installed"
    if marker.exists() and marker.read_bytes() == lock:
        return True
    shutil.copy(SOURCES / "package.json", WORK)
    installed.write_bytes(lock)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
    if subprocess.run(command, cwd=WORK, env=environment).returncode:
        return False
    marker.write_bytes(lock)
    return True


def prepare_work_directory() -> None:
    for name in ("generated", "compiled", "logs"):
        shutil.rmtree(WORK / name, ignore_errors=True)
        (WORK / name).mkdir(parents=True)
    (WORK / PYTHON_PACKAGES).mkdir()
    for source in [*SOURCES.glob("*.ts"), SOURCES / "tsconfig.json"]:
        shutil.copy(source, WORK)
    for client in TYPESCRIPT_CLIENTS:
        name = client.name.split()[0]
        options = {"outDir": f"compiled/{name}"}
        config = {"extends": "./tsconfig.json", "files": [f"{name}.ts"], "compilerOptions": options}
        (WORK / f"{name}.json").write_text(json.dumps(config))


def check(client: Client, environment: dict[str, str]) -> Iterator[str]:
    """Yields the result of each step, and ends after a step that failed."""
    output = ""
    for step, command in [("generate", client.generate), ("compile", client.compile), ("scenario", client.run)]:
        # a virtual environment is first in this PATH
        program = shutil.which(command[0], path=environment["PATH"]) or command[0]
        log = WORK / f"logs/{client.name} {step}.log"
        with open(log, "w") as file:
            done = subprocess.run(
                [program, *command[1:]], cwd=WORK, env=environment, stdout=file, stderr=subprocess.STDOUT
            )
        output = log.read_text()
        if done.returncode:
            print(f"client_test: {client.name}: {step} failed:\n{output[-3000:]}", file=sys.stderr)
            yield "FAILED"
            return
        if step != "scenario":
            yield "ok"
    yield compare(client, json.loads(output.splitlines()[-1]))


def compare(client: Client, observed: dict[str, object]) -> str:
    """Returns `ok` or `FAILED`, and prints the observations that are not the expected ones."""
    for step in EXPECTED.keys() | observed.keys():
        if observed.get(step) != EXPECTED.get(step):
            message = f"{step}: {observed.get(step)} instead of {EXPECTED.get(step)}"
            print(f"client_test: {client.name}: {message}", file=sys.stderr)
    return "ok" if observed == EXPECTED else "FAILED"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", default="", help="test the clients whose names contain NAME")
    arguments = parser.parse_args()
    rerun_with_services("client-test")
    try:
        binaries = install_tools("client-test")
    except InstallError as error:
        print(f"SKIPPED: the generated clients were NOT tested: {error}")
        return 0
    prepare_work_directory()
    path = os.pathsep.join([str(WORK / "node_modules/.bin"), str(binaries), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(WORK / PYTHON_PACKAGES), "SHOP_PASSWORD": PASSWORD}
    clients = PYTHON_CLIENTS + TYPESCRIPT_CLIENTS
    if not install_npm_packages(environment):
        print("SKIPPED: the TypeScript clients were NOT tested: npm could not install their packages")
        clients = PYTHON_CLIENTS
    versions, rows = pinned_versions(), []
    with running_server(products=PRODUCTS) as (url, _):
        (WORK / "openapi.json").write_bytes(urllib.request.urlopen(url + "/openapi.json", timeout=10).read())
        for client in (client for client in clients if arguments.only in client.name):
            results = [*check(client, {**environment, "SHOP": url}), "", ""][:3]
            rows.append([client.name, client.generator, versions[client.generator], *results])
            print(" | ".join(rows[-1]), flush=True)
    print("\n| client | generator | version | generate | compile or import | scenario |\n|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return 0 if all(row[3:] == ["ok"] * 3 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
