"""Runs a command under a container engine's seccomp profile, as runc would: under_seccomp.py PROFILE
[--without NAME,NAME] -- COMMAND... Needs no engine and no privileges, only libseccomp."""

import ctypes
import json
import os
import sys

ACTIONS = {"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_ERRNO": 0x00050000}
ARCHITECTURES = {"SCMP_ARCH_X86_64": 0xC000003E, "SCMP_ARCH_AARCH64": 0xC00000B7}
COMPARISONS = {"SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}
NO_SUCH_CALL = -1


class Argument(ctypes.Structure):
    _fields_ = [
        ("index", ctypes.c_uint),
        ("comparison", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    ]


def done(result, what, also_fine=()):
    if result < 0 and -result not in also_fine:
        sys.exit(f"{what}: {os.strerror(-result)}")


def action_of(rule, name, errno):
    action = ACTIONS[rule[name]]
    return action | rule.get(errno, 1) if rule[name] == "SCMP_ACT_ERRNO" else action


def load(profile, without):
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Argument)
    ]
    context = ctypes.c_void_p(library.seccomp_init(action_of(profile, "defaultAction", "defaultErrnoRet")))
    for architecture in profile["architectures"]:
        # The machine's own is there from the start.
        done(library.seccomp_arch_add(context, ARCHITECTURES[architecture]), architecture, (17,))
    for rule in profile["syscalls"]:
        arguments = [
            Argument(a["index"], COMPARISONS[a["op"]], a["value"], a.get("valueTwo", 0))
            for a in rule.get("args", [])
        ]
        array = (Argument * len(arguments))(*arguments)
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            # A library older than the call leaves it to the default action, as engines do.
            if number != NO_SUCH_CALL and name not in without:
                action = action_of(rule, "action", "errnoRet")
                done(library.seccomp_rule_add_array(context, action, number, len(array), array), name)
    done(library.seccomp_load(context), "seccomp_load")


def main(profile, *rest):
    options, command = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    without = options[options.index("--without") + 1].split(",") if options else []
    with open(profile, encoding="utf-8") as file:
        load(json.load(file), without)
    os.execv(command[0], command)


main(*sys.argv[1:])
