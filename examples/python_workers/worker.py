"""A worker of main.rs: it counts the words of files that it is handed open."""

import io
import os
import signal
import traceback
from dataclasses import dataclass
from typing import Union

import wormhole_ipc
from wormhole_ipc import Receiver, Sender


@dataclass
class Counted:
    lines: int
    words: int


@dataclass
class Failed:
    traceback: str


@dataclass
class Job:
    name: str
    input: io.FileIO
    reply: Sender[Union[Counted, Failed]]


def count(job: Job) -> Counted:
    if job.name == "crash":
        os.kill(os.getpid(), signal.SIGKILL)  # as one does that is out of memory
    text = job.input.readall().decode()
    return Counted(len(text.splitlines()), len(text.split()))


for job in wormhole_ipc.inherit(Receiver[Job]):
    with job.input, job.reply:
        answer: Union[Counted, Failed]
        try:
            answer = count(job)
        except Exception:
            answer = Failed(traceback.format_exc())
        try:
            job.reply.send(answer)
        except wormhole_ipc.Disconnected:
            pass  # the program that asked is gone
