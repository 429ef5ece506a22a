"""A kernel that is quick to start and does as it is told; run as a program with a connection file.

It answers each shell request ``[command, argument …]`` with one reply. It is no Jupyter kernel: what
it publishes is numbered text, for it is the way there that is tested.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import zmq


def main(path: str, *options: str) -> None:
    with open(path, encoding="utf-8") as file:
        connection = json.load(file)
    print("fake kernel of", os.getpid(), flush=True)
    if "stubborn" in options:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "dies" in options:
        sys.stderr.write("Traceback\nImportError: there is no such thing\n")
        sys.exit(3)
    for option in options:
        if option.startswith("taken="):
            refuse_once(option[len("taken=") :])
    context = zmq.Context()
    sockets: dict[str, Any] = {}
    for name, kind in (("iopub", zmq.PUB), ("shell", zmq.ROUTER), ("control", zmq.ROUTER), ("hb", zmq.REP)):
        sockets[name] = context.socket(kind)
        sockets[name].linger = 1000
        sockets[name].sndhwm = 0  # what libzmq itself drops is not what is tested
        joint = "-" if connection["transport"] == "ipc" else ":"
        port = connection[f"{name}_port"]
        sockets[name].bind(f"{connection['transport']}://{connection['ip']}{joint}{port}")
    serve(connection, sockets)


def refuse_once(marker: str) -> None:
    if not os.path.exists(marker):
        with open(marker, "w", encoding="utf-8"):
            sys.exit("zmq.error.ZMQError: Address already in use (addr='tcp://127.0.0.1:1')")


def serve(connection: dict[str, Any], sockets: dict[str, Any]) -> None:
    interrupts = 0

    def interrupted(*args: object) -> None:
        nonlocal interrupts
        interrupts += 1
        sockets["iopub"].send_multipart([b"interrupted", str(interrupts).encode()])

    signal.signal(signal.SIGINT, interrupted)
    poller = zmq.Poller()
    for name in ("shell", "control", "hb"):
        poller.register(sockets[name], zmq.POLLIN)
    while True:
        for socket, _ in poller.poll():
            if socket is sockets["hb"]:
                socket.send(socket.recv())
                continue
            who, command, *arguments = socket.recv_multipart()
            answer = obey(command.decode(), [one.decode() for one in arguments], connection, sockets)
            socket.send_multipart([who, answer.encode()])


def obey(command: str, arguments: list[str], connection: dict[str, Any], sockets: dict[str, Any]) -> str:
    if command == "publish":
        for number in range(int(arguments[0]), int(arguments[1])):
            sockets["iopub"].send_multipart([b"out", str(number).encode()])
    elif command == "status":
        content = json.dumps({"execution_state": arguments[0]}).encode()
        header = b'{"msg_type": "status"}'
        sockets["iopub"].send_multipart([b"status", b"<IDS|MSG>", b"", header, b"{}", b"{}", content])
    elif command == "exit":
        os._exit(int(arguments[0]))
    elif command == "print":
        print(arguments[0], flush=True)
    elif command == "leave":  # as ipykernel does it: the sockets first, then what else there is to do
        sockets["iopub"].close(linger=1000)
        time.sleep(float(arguments[1]))
        with open(arguments[0], "w", encoding="utf-8") as file:
            file.write("left in peace")
        os._exit(0)
    elif command == "child":
        child = subprocess.Popen(["sleep", "1000"])
        return str(child.pid)
    elif command == "facts":
        facts = {
            "pid": os.getpid(),
            "ppid": os.getppid(),
            "cwd": os.getcwd(),
            "env": dict(os.environ),
            "argv": sys.argv,
            "connection": connection,
        }
        return json.dumps(facts)
    return "done"


if __name__ == "__main__":
    main(*sys.argv[1:])
