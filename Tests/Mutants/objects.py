"""What a finished build is made of, as SwiftPM has written it down.

SwiftPM compiles all that stands on a module again when one of its files changes: minutes
for a kernel or a shim, on which everything stands by way of one function or a C header.
Here just the objects that are made from a file are compiled, and what they are in linked.
"""

import json
import os
import re

#: The modules of kernels, those first that take the least time, and the table that is of each.
KERNELS = {
    "MLAKernelsPortable": "portable", "MLAKernelsAVX2": "avx2", "MLAKernelsAVX512BF16": "avx512_bf16",
    "MLAKernelsAVX512": "avx512", "MLAKernelsAMX": "amx",
}
#: What all of them include, and nothing else.
KERNELS_HEADER = "Sources/MLAShims/include/mla_shims_vector.h"


class Objects:
    def __init__(self, tree, folder):
        #: What compiles or links: name, files it reads, files it writes, arguments.
        self.commands = []
        with open(os.path.join(tree, folder, "release.yaml"), encoding="utf-8") as file:
            for block in file.read().split("\n\n"):
                lists = dict(re.findall(r"^    (inputs|outputs|args): (\[.*\])$", block, re.M))
                if len(lists) == 3:
                    name = block.split('"')[1]
                    self.commands.append((name, *(json.loads(lists[key]) for key in ("inputs", "outputs", "args"))))
        self.tree = tree
        #: What a fault has been compiled into, the files by name.
        self.faulty = {}

    def making(self, path):
        """The commands that compile a file: what they write and their arguments, by the module of
        a kernel or the object of C."""
        found = {}
        for name, inputs, outputs, arguments in self.commands:
            reads = {os.path.realpath(each) for each in inputs if each.endswith((".swift", ".c"))}
            module = re.fullmatch(r"C\.(\w+)-.*", name)
            name = module[1] if module else name
            if os.path.join(self.tree, path) in reads or path == KERNELS_HEADER and name in KERNELS:
                found[name] = outputs, arguments
        return found

    def compile(self, path, modules):
        """What compiles those of a file's modules, None being all, that no fault is in since mend()."""
        commands = []
        for name, (outputs, arguments) in self.making(path).items():
            if name not in self.faulty and (name not in KERNELS or modules is None or name in modules):
                self.faulty[name] = outputs
                for output in outputs:
                    os.replace(output, output + ".kept")
                commands.append(arguments)
        return commands

    def link(self, product):
        """The command that links what ends so."""
        return next(arguments for name, _, _, arguments in self.commands if name.endswith(product))

    def mend(self):
        """Puts the objects back as they were, so that SwiftPM finds nothing changed."""
        for outputs in self.faulty.values():
            for output in outputs:
                os.replace(output + ".kept", output)
        self.faulty.clear()
