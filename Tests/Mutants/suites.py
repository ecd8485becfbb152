"""The suites that find planted faults, by name:

    abi:PROGRAM            a program of Tests/ABI; abi: all of them
    swift:CLASS[/TEST]     Swift tests; swift: all of them
    python:FILE[::TEST]    of Tests/Python; python: all of them
    vllm:FILE[::TEST]      of Tests/vLLM
    transformers:FILE[::TEST]  of Tests/Transformers
    ggml:nodes             of Tests/GGML
    gpu:PROGRAM            of Tests/GPU; gpu: all of them
    gpu:python[/FILE]      of Tests/GPU/python
    gate:SCRIPT            of Tests/Gates
    model                  what tests the tables that the host lacks
    arm64:SCRIPT           of Tests/Arm64, run: which compiles the kernels itself

With @TABLE behind it one of the first two is run with that kernel table alone: where the
host lacks it, of the build with modelled instructions.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time

from objects import KERNELS
from workplace import BuildError

TABLES = ("portable", "avx2", "avx512", "avx512_bf16", "amx")
FLAGS = ("", "avx2", "avx512bw", "avx512_bf16", "amx_bf16")

#: The quickest first.
PROGRAMS = (
    "wrapper vtable devices loads_nothing layer_backend bad_input environment host log_callback "
    "golden shapes one_call interleaved arithmetic numbers ds_mla weight_scales layouts gather indexer index_store threads first_use unload bits "
    "malformed_calls allocation_failures batch_limits short_memory"
).split()
GPU_MACHINE_PROGRAMS = "machine_cudnn machine_memory machine_graphs machine_launches machine_devices machine_streams".split()
GPU_PROGRAMS = (
    "absent cudnn_library cudnn_plans cudnn_layers cudnn_projections cudnn names merge caching gathering layer_refusals "
    "layers refusals graphs streams no_driver no_cudnn "
    "golden attention python"
).split()
ARGUMENTS = {"malformed_calls": ["30000"], "unload": [".build/stage/lib/libmlaprefill.so.1"]}
#: What programs, Swift tests and pytest say of a failure.
FAILURE = re.compile(r"^(not ok|FAILED|E  )|: error:|^Test Case .* failed")
#: Not of seconds.
SLOW = (
    "abi:allocation_failures", "abi:batch_limits", "abi:bits", "abi:short_memory", "abi:first_use", "swift:LongContextTests",
    "swift:LayerTests", "swift:LayerRegisteredTests", "swift:AbsorbedTests", "vllm:", "model",
)


def everything_for(path):
    """What a fault in that file must get past to survive."""
    if path.startswith("python/src/mla_prefill/vllm_plugin/"):
        return ["python:test_vllm_registry.py", "vllm"]
    if path.startswith("python/src/mla_prefill/transformers/"):
        return ["transformers"]
    if path.startswith("python/"):
        return ["python", "gpu:python"]
    if path.startswith("Sources/GGMLBackend/"):
        return ["ggml:nodes"]
    if path.startswith("Tests/GPU/"):
        return [f"gpu:{program}" for program in GPU_MACHINE_PROGRAMS]
    if "CUDA" in path or "/Devices/" in path:
        return ["gpu", "swift:CUDALaunchTests,CUDASelectionTests,CodeCacheTests", "abi:devices", "abi:loads_nothing"]
    if path.startswith("include/"):
        return ["gate:headers", "abi"]
    if path.startswith("Sources/MLAKernelsAMX/"):
        return ["model"]
    if path.startswith("Sources/MLAKernelsNEON"):
        return ["arm64:run"]
    return ["abi", "swift", "python", *(["model"] if "Kernels" in path else [])]


class Suites:
    def __init__(self, workplace, python, vllm, transformers):
        self.workplace, self.python, self.vllm = workplace, python, vllm
        self.transformers = transformers
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = {"", *file.read().split()}
        self.tables = [table for table, flag in zip(TABLES, FLAGS) if flag in flags]
        self.lists = {}
        #: Seconds that each part takes without a fault.
        self.seconds = {}

    def meeting(self, fault):
        """The fault's suites and the modules of kernels that are to have it, None: all. Of several
        that share a source the quickest is compiled first, and tested alone."""
        families = [module for module in self.workplace.families(fault.path) if KERNELS[module] in self.tables]
        alone = families[:1] if len(families) > 1 else []
        quick = [(f"{suite}@{KERNELS[module]}", alone)
                 for module in alone for suite in fault.suites if suite.startswith(("abi:", "swift:")) and "@" not in suite]
        return quick + [(suite, None) for suite in fault.suites]

    def require_passing(self, suites):
        """What fails without a fault finds none."""
        known = os.path.join(self.workplace.scratch, "passing.tsv")
        states = {kind: self.workplace.state(kind) for kind in {suite.partition(":")[0] for suite in suites}}
        if os.path.exists(known):
            with open(known, encoding="utf-8") as file:
                for state, suite, seconds in (line.split() for line in file):
                    if state == states.get(suite.partition(":")[0]):
                        self.seconds.setdefault(suite, float(seconds))
        failing = []
        for suite in suites:
            if suite in self.seconds:
                continue
            try:
                found = self.failing(suite)
            except BuildError as error:
                sys.exit(f"the checkout cannot be built for {suite}: {error}")
            if found:
                print(f"not ok without any fault {found[0]}: {found[1]}", flush=True)
                failing.append(suite)
            else:
                with open(known, "a", encoding="utf-8") as file:
                    file.write(f"{states[suite.partition(':')[0]]} {suite} {self.seconds[suite]:.1f}\n")
        if failing:
            sys.exit(1)

    def failing(self, suite, modules=None):
        """The first of a suite's parts that fails, and how; None where all pass, with a fault in
        kernels in those of the modules alone. BuildError."""
        kind, _, what = suite.partition(":")
        what, _, table = what.partition("@")
        self.modules = modules or [module for module, of in KERNELS.items() if of in self.tables]
        for part in [what] if what else self._all(kind):
            name = f"{kind}:{part}" + (f"@{table}" if table else "")
            # Of a machine that others use as well, too.
            self.patience = 30 + 5 * self.seconds.get(name, 300)
            how, seconds = getattr(self, f"_{kind}")(part, table)
            if how:
                return name, how
            self.seconds.setdefault(name, seconds)
        return None

    def _all(self, kind):
        if kind == "abi":
            return PROGRAMS
        if kind == "gpu":
            return GPU_PROGRAMS
        if kind == "model":
            return [table for table in TABLES if table not in self.tables]
        return [""]

    def _abi(self, program, table):
        variables = self._table(table)
        if table and table not in self.tables:
            variables["LD_LIBRARY_PATH"] = os.path.join(self.workplace.tree, self.workplace.model())
        else:
            self.workplace.library(self.modules)
        path = self.workplace.abi(program)
        return self._run([path, *ARGUMENTS.get(program, [])], variables)

    def _swift(self, test, table):
        if table and table not in self.tables:
            tests = os.path.join(self.workplace.model(), "MLAPrefillPackageTests.xctest")
        else:
            tests = self.workplace.swift_tests(self.modules)
        if not test:
            return self._run([tests], {})
        names = [name for each in test.split(",") for name in self._named(tests, each)]
        return self._run([tests, ",".join(names)], self._table(table))

    def _model(self, table, _):
        return self._swift("KernelTests,MLACoreTests" + (",AMXKernelTests" if table == "amx" else ""), table)

    def _named(self, tests, test):
        """The full names of a module's tests, of a class's, or of one test."""
        if tests not in self.lists:
            listed = subprocess.run(
                [tests, "--list-tests"], cwd=self.workplace.tree, env=self.workplace.environment,
                capture_output=True, text=True, check=True)
            self.lists[tests] = listed.stdout.split()
        found = [name for name in self.lists[tests]
                 if name.startswith(f"{test}.") or f".{test}/" in name or name.endswith(f".{test}")]
        if not found:
            raise ValueError(f"there is no Swift test {test}")
        return found

    def _python(self, file, _):
        site = self.workplace.package(self.modules)
        return self._pytest(self.python, "Tests/Python", file, {"PYTHONPATH": site})

    def _vllm(self, file, _):
        site = self.workplace.package(self.modules)
        return self._pytest(self.vllm, "Tests/vLLM", file, {"PYTHONPATH": site})

    def _transformers(self, file, _):
        site = self.workplace.package(self.modules)
        variables = {"PYTHONPATH": site, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        return self._pytest(self.transformers, "Tests/Transformers", file, variables)

    def _pytest(self, python, folder, file, variables):
        path = os.path.join(folder, file) if file else folder
        return self._run(
            [python, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"--rootdir={folder}", path], variables)

    def _ggml(self, _, __):
        self.workplace.library()
        # Threads of a machine that is busy are not to spin while others wait for it.
        return self._run(self.workplace.ggml(), {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"})

    def _gpu(self, program, _):
        program, _, file = program.partition("/")
        if program == "python":
            chosen = ["-k", file.removesuffix(".py")] if file else []
            variables = {"PYTHONPATH": self.workplace.package(self.modules), "PYTHON": self.python}
            return self._run(["Tests/GPU/run.sh", "python", "-x", *chosen], variables)
        # The machine's own know nothing of the library.
        if program not in GPU_MACHINE_PROGRAMS:
            self.workplace.library()
        return self._run(["Tests/GPU/run.sh", program], {})

    def _arm64(self, script, _):
        return self._run([f"Tests/Arm64/{script}.sh"], {})

    def _gate(self, script, _):
        return self._run([f"Tests/Gates/{script}.sh"], {})

    def _table(self, table):
        return {"MLA_MAX_ISA": table, "MLA_EXPECT_ISA": table, "MLA_TEST_TABLE": table} if table else {}

    def _run(self, command, variables):
        """How a command fails first, "" where it does not, and how long it takes."""
        begin = time.monotonic()
        process = subprocess.Popen(
            command, cwd=self.workplace.tree, env=self.workplace.environment | variables,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", start_new_session=True)
        too_late = threading.Timer(self.patience, _end, [process])
        too_late.start()
        line, failure = "", ""
        for line in process.stdout:
            if FAILURE.search(line):
                failure = line
                break
        else:
            process.wait()
        seconds = time.monotonic() - begin
        too_late.cancel()
        _end(process)
        if failure:
            return failure.strip()[:160], 0
        if process.returncode == 0:
            return "", seconds
        if seconds >= self.patience:
            return f"does not end in {self.patience:.0f} s", 0
        return f"status {process.returncode}: {line}".strip()[:160], 0


def _end(process):
    """With all that it has started. Its output may have ended before it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
