"""Why a job failed: the texts are those that torch, vLLM, NCCL, numpy, the kernel and our own stages really write."""

from __future__ import annotations

import itertools
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lark_engine.config import GenerateConfig, ScoreConfig, TrainConfig
from lark_engine.jobs import remedies
from lark_engine.jobs.failures import Ending, Failure, classify
from lark_engine.jobs.remedies import IN_FLIGHT, SCORE_TOKENS, given_options, stage_of
from lark_engine.recipes import train_recipe

TRAIN = "lark train lora --model-path qwen --train-data d"
FULL = "lark train full --model-path qwen --train-data d"
SCORE = "lark score --pool p --student qwen"
GENERATE = "lark generate --benchmark aime24 --model-path qwen"
TRAIN_OOM = (
    "training does not fit on cuda; lower --pack-length (what is learned stays the same), turn on "
    "--gradient-checkpointing, or lower --max-length; with the first two, running again resumes"
)
CUDA_OOM = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.19 GiB of which 1.02 GiB is free."
)
KILLED_RANK = (
    "the whole log is /w/train.log\n  exitcode  : -9 (pid: 4242)\n  traceback : Signal 9 (SIGKILL) received by PID 4242"
)
WATCHDOG = (
    "[rank1]:[E626 06:24:44.903881913 ProcessGroupNCCL.cpp:616] [Rank 1] Watchdog caught collective operation timeout: "
    "WorkNCCL(SeqNum=808, OpType=ALLREDUCE, NumelIn=9801523, NumelOut=9801523, Timeout(ms)=600000) ran for 600020 "
    "milliseconds before timing out."
)
GLOO_LOST = (
    "[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:39568: Connection "
    "reset by peer. This is typically caused by a remote worker hanging or bugs in the application."
)
KV_CACHE = (
    "ValueError: To serve at least one request with the model's max seq len (131072), (16.00 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (4.25 GiB). Based on the available memory, the "
    "estimated maximum "
    "model length is 34736. Try increasing `gpu_memory_utilization` or decreasing `max_model_len`"
)


def server_ended(cause: str, status: int = 1) -> str:
    return (
        f"the vllm server for /m/qwen ended with status {status}: {cause}; its whole log is "
        f"/w/logs/server.log; run the "
        "same command again, it resumes"
    )


def trained(cause: str, code: int = 1) -> str:
    return f"training ended with exit code {code}: {cause}; the whole log is /w/train.log"


def ended(command: str = "lark select", **known: Any) -> Failure:
    return classify(Ending(command=shlex.split(command), **known))


# What stages reported, by its reason and whether it is transient; with its place where it has one.
REPORTED: dict[tuple[str, bool], list[tuple[str, ...]]] = {
    ("device_memory", False): [
        ("DeviceError", TRAIN_OOM),
        ("OutOfMemoryError", CUDA_OOM),
        ("torch.OutOfMemoryError", ""),
        ("TrainingError", trained(f"torch.OutOfMemoryError: {CUDA_OOM}")),
        ("DeviceError", "a trajectory of 30112 tokens does not fit on cuda; lower --max-length"),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(h)`"),
        ("ServerError", server_ended(KV_CACHE)),
        ("ServerError", server_ended("ValueError: No available memory for the cache blocks. Try")),
        ("ServerError", server_ended(
            "ValueError: Free memory on device cuda:0 (19.77/22.05 GiB) on startup is less than desired GPU "
            "memory utilization (0.9, 19.84 GiB). Decrease GPU memory utilization or reduce GPU memory used by other"
        )),
    ],
    ("host_memory", False): [
        ("MemoryError", ""),
        ("_ArrayMemoryError", "Unable to allocate 3.2 GiB for an array with shape (20000, 20000)"),
        ("RuntimeError",
         "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
         "allocate 4503599627370496 bytes. Error code 12 (Cannot allocate memory)"),
        ("DeviceError", "qwen does not fit on cpu; use a smaller model or another device"),
        ("DeviceError",
         "a worker died 4 times on the same batch; if its memory was too small, lower --batch-tokens or "
         "--num-workers; the same command resumes"),
        ("OutOfMemoryError", "Task was killed due to the node running low on memory."),
        ("RuntimeError",
         "DataLoader worker (pid 46794) is killed by signal: Bus error. It is possible that dataloader's workers "
         "are out of shared memory. Please try to raise your shared memory limit."),
        ("OSError", "unable to write to file </torch_4242_0>: No space left on device (28)"),
        ("ServerError", server_ended(
            "ValueError: Available memory on node 0 (1.2/8.0 GiB) on startup is less than desired CPU memory "
            "utilization (0.9, 7.2 GiB)."
        )),
    ],
    ("disk_full", False): [
        ("StoreError", "/w/scores/x: the disk is full; free some space and run the same command again, it resumes"),
        ("StoreError",
         "/w/c: a checkpoint needs 9.10 GB, and the disk has 2.20 GB left; free some and run the same command "
         "again: it resumes"),
        ("OSError", "[Errno 28] No space left on device: '/w/x.jsonl'"),
        ("OSError", "[Errno 122] Disk quota exceeded"),
    ],
    ("not_writable", False): [
        ("StoreError", "/w: the file system is read-only; choose another folder with --workspace"),
        ("OSError", "[Errno 30] Read-only file system: '/w/x'"),
        ("PermissionError", "[Errno 13] Permission denied: '/w/x'"),
    ],
    ("bad_input", False): [
        ("PoolError",
         "pool.jsonl:1042: candidate 3 of problem 17 has no assistant message; give each exactly one. In all 2 "
         "lines are bad, listed in /w/rejected.jsonl; mend the source, or run the same command with --skip-bad "
         "to leave them out",
         "pool.jsonl:1042"),
        ("PoolError",
         "teachers/r1/data.json[3]: the row is null, no JSON object; each row must be one",
         "teachers/r1/data.json[3]"),
        ("PoolError", "my pools/p 1.jsonl: no such file or folder; give a file", "my pools/p 1.jsonl"),
        ("PoolError",
         "bench.json: problem 7: has no answer; give text or a number under 'answer'",
         "bench.json: problem 7"),
        ("PoolError", f"org/set/train:17: messages holds '{CUDA_OOM}'; write a list", "org/set/train:17"),
        ("StoreError",
         "/w/scores/a/manifest.json:5: not valid JSON: Expecting value at column 3",
         "/w/scores/a/manifest.json:5"),
        ("ConfigError", "demo.yaml:12: not valid YAML: key 'lr' is given twice (line 12)", "demo.yaml:12"),
        ("TrainingError",
         "nothing is left to train on ({'cut': 9}); raise --max-length or select with other weights"),
        ("StudentError", "/m/qwen: no config.json; give the folder of a Hugging Face model"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: 'train.jsonl'", "train.jsonl"),
    ],
    ("bad_input", True): [
        ("PoolError", "p.jsonl: the source changed while it was being imported; run the same command again", "p.jsonl"),
    ],
    ("bad_option", False): [
        ("ConfigError", "demo.yaml: train: unknown key 'lrr'; did you mean 'lr'?", "demo.yaml"),
        ("ConfigError", "lark train lora: 'lr' = -1.0: input should be greater than 0"),
        ("StoreError", "no selection 'x' in workspace /w; did you mean 'xy'?"),
        ("ServerError", "http://h:8000 serves 2 models (a, b); give --endpoint-model"),
        ("StudentError", "no model folder, workspace student or hub id 'qwem'; check the path"),
    ],
    ("import_or_version", False): [
        ("ModuleNotFoundError", "No module named 'flash_attn'"),
        ("ImportError", "/e/_C.so: undefined symbol: _ZN3c104cuda9SetDeviceEab"),
        ("OSError", "/lib/libstdc++.so.6: version `GLIBCXX_3.4.32' not found"),
        ("RuntimeError", "operator torchvision::nms does not exist"),
        ("AcceleratorError", "CUDA error: no kernel image is available for execution on the device"),
        ("RuntimeError", "CUDA driver version is insufficient for CUDA runtime version"),
        ("OSError", "libcuda.so.1: cannot open shared object file: No such file or directory"),
        ("ServerError", server_ended("ImportError: cannot import name 'x' from 'vllm'")),
        ("DeviceError", "executor 'ray' needs Ray; install it with: pip install 'lark-studio[cluster]'"),
        ("ServerError", "vLLM is not installed for /e/bin/python; install it with `pip install 'lark-studio[gpu]'`"),
        ("ConfigError", "report_to: wandb is not installed; `pip install wandb`, or leave it out"),
    ],
    ("collective_timeout", True): [
        ("TrainingError", trained(f"RuntimeError: {GLOO_LOST}")),
        ("RuntimeError",
         "[third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms for recv "
         "operation to complete"),
        ("RuntimeError", "[gloo/transport/tcp/pair.cc:598] Connection closed by peer [18.25.6.30]"),
        ("DistStoreError", "Timed out after 601 seconds waiting for clients. 1/2 clients joined."),
        ("DistNetworkError",
         "The client socket has timed out after 60000ms while trying to connect to (10.0.0.1, 29500)."),
        ("DistBackendError",
         "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.hpp:268, remote process exited or there "
         "was a network error"),
        ("RendezvousTimeoutError", ""),
    ],
    ("server_start", True): [
        ("ServerError",
         "the vllm server for /m/qwen was not healthy within 900 s: loading; raise --start-timeout-s, or read "
         "/w/logs/server.log"),
        ("ServerError", server_ended("it wrote no log")),
    ],
    ("network", True): [
        ("ServerError",
         "http://h/v1: no answer after 5 attempts, the last one: 503; check the server and run the same command "
         "again, it resumes"),
        ("StudentError",
         "no model folder or workspace student 'a/b', and the hub says: We couldn't connect to "
         "'https://huggingface.co' to load the files"),
        ("ConnectionError", "HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded"),
    ],
    ("device_missing", False): [
        ("DeviceError", "CUDA was asked for, but torch finds no CUDA device; use --device cpu, or fix the driver"),
        ("AcceleratorError", "CUDA error: invalid device ordinal"),
    ],
    ("device_missing", True): [
        ("AcceleratorError", "CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
    ],
    ("device_error", False): [
        ("AcceleratorError", "CUDA error: uncorrectable ECC error encountered"),
        ("AcceleratorError", "CUDA error: an illegal memory access was encountered"),
    ],
    ("killed", True): [
        ("ServerError", server_ended("INFO: 200 OK", 247)),
        ("BrokenProcessPool",
         "A process in the process pool was terminated abruptly while the future was running or pending."),
    ],
    ("numbers", False): [
        ("TrainingError",
         "the loss became nan at step 3 (p:1): the usual cause is a learning rate that is too high; lower --lr "
         "(now 0.0001), or use --dtype float32"),
        ("TrainingError",
         "the loss on held_out is not finite after step 10 (p:1): these overflow in bfloat16; use --dtype "
         "float32, or leave them out of the selection"),
    ],
    ("program_error", False): [
        ("KeyError", "'messages'"),
        ("AssertionError", ""),
        ("AcceleratorError", "CUDA error: device-side assert triggered"),
        ("TrainingError", trained("=====")),
    ],
}  # fmt: skip

# Other endings: nothing reported, or more known than that.
OTHERWISE: list[tuple[str, bool, dict[str, Any]]] = [
    ("host_memory", False, {"signal": signal.SIGKILL, "oom_kills": 1}),
    ("host_memory", False, {"exit_code": 137, "oom_kills": 2}),
    ("host_memory", False, {"error": "TrainingError", "message": trained("====", 247), "oom_kills": 1}),
    ("host_memory", False,
     {"error": "TrainingError", "message": trained(f"RuntimeError: {GLOO_LOST}"), "oom_kills": 1}),
    ("host_memory", False, {"signal": signal.SIGBUS}),
    ("host_memory", False,
     {"signal": signal.SIGABRT, "log": "terminate called after throwing an instance of 'std::bad_alloc'"}),
    ("disk_full", False, {"signal": signal.SIGXFSZ}),
    ("bad_input", False,
     {"exit_code": 2, "log": "loading\nlark: pool.jsonl:3: not valid JSON; write one object a line\n"}),
    ("bad_option", False,
     {"exit_code": 2, "log": "Usage: lark score [OPTIONS]\n╭─ Error ─────╮\n│ No such option: --foo   │\n"}),
    ("bad_option", False, {"exit_code": 2, "log": "lark: no training recipe 'loar'; did you mean 'lora'?\n"}),
    ("import_or_version", False, {"signal": signal.SIGILL}),
    ("collective_timeout", True, {"signal": signal.SIGABRT, "log": WATCHDOG}),
    ("device_error", False,
     {"signal": signal.SIGABRT, "log": "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."}),
    ("killed", True, {"signal": signal.SIGKILL}),
    ("killed", True, {"signal": signal.SIGTERM}),
    ("killed", True, {"exit_code": 143}),
    ("killed", False, {"exit_code": 130}),
    ("killed", False, {"signal": signal.SIGXCPU}),
    ("killed", True, {}),
    ("killed", True, {"exit_code": 1, "log": KILLED_RANK}),
    ("program_error", False, {"signal": signal.SIGSEGV}),
    ("program_error", False, {"exit_code": 139}),
    ("program_error", False, {"exit_code": 1}),
    ("program_error", False, {"exit_code": 1, "log": "Traceback (most recent call last):\nKeyError: 'messages'\n"}),
]  # fmt: skip


@pytest.mark.parametrize(
    "reason, is_transient, error, message, place",
    [(*kind, *said, None)[:5] for kind, reported in REPORTED.items() for said in reported],
)
def test_what_a_stage_reports_is_classified(reason, is_transient, error, message, place):
    failure = ended(error=error, message=message, exit_code=2)

    assert (failure.reason, failure.is_transient, failure.place) == (reason, is_transient, place)
    assert failure.message and failure.remedy


@pytest.mark.parametrize("reason, is_transient, known", OTHERWISE)
def test_an_ending_without_a_report_is_classified(reason, is_transient, known):
    failure = ended(**known)

    assert (failure.reason, failure.is_transient) == (reason, is_transient)
    assert failure.message and failure.remedy


def test_an_error_of_ours_is_split_into_what_happened_and_what_to_do():
    failure = ended(
        error="PoolError",
        message="p.jsonl:3: has no teacher; give one. In all 4 lines are bad, listed in /w/bad.jsonl; mend the file",
    )

    assert failure == Failure(
        reason="bad_input", message="p.jsonl:3: has no teacher", place="p.jsonl:3",
        remedy="give one. In all 4 lines are bad, listed in /w/bad.jsonl; mend the file", is_transient=False,
    )  # fmt: skip


def test_an_error_of_ours_without_an_instruction_gets_that_of_its_reason():
    failure = ended(error="ConfigError", message="lark train lora: 'lr' = -1.0: input should be greater than 0")

    assert failure.message == "lark train lora: 'lr' = -1.0: input should be greater than 0"
    assert failure.remedy == "correct it and run the command again"


def test_another_programs_text_is_quoted_after_what_happened():
    assert ended(error="KeyError", message="'messages'").message == "the program failed: KeyError: 'messages'"
    assert ended(error="MemoryError", message="MemoryError").message == "the machine's memory is used up: MemoryError"


def test_what_the_stage_reports_comes_before_signal_and_log():
    failure = ended(error="PoolError", message="p.jsonl:1: is empty", signal=9, oom_kills=1, log=CUDA_OOM)

    assert failure.reason == "bad_input"


def test_a_signal_comes_before_the_log():
    assert ended(signal=signal.SIGTERM, log=CUDA_OOM).reason == "killed"


def test_a_crash_is_explained_by_the_log_where_it_can_be():
    assert ended(signal=signal.SIGABRT, log=f"terminate called\n  what():  {CUDA_OOM}").reason == "device_memory"


def test_a_lost_rank_is_explained_by_the_rank_that_was_lost():
    lost = trained(f"RuntimeError: {GLOO_LOST}")
    log = f"[rank1]: torch.OutOfMemoryError: {CUDA_OOM}"

    assert ended(error="TrainingError", message=lost, log=log).reason == "device_memory"
    assert ended(error="TrainingError", message=lost, oom_kills=1).reason == "host_memory"
    assert ended(error="TrainingError", message=lost).reason == "collective_timeout"


def test_of_several_causes_in_a_log_the_last_counts():
    log = f"(EngineCore pid=17) ERROR 09-28 15:47:24 [core.py:718] {CUDA_OOM}\nagain\nOSError: Disk quota exceeded\n"

    assert ended(exit_code=1, log=log).message == "the disk is full: OSError: Disk quota exceeded"


def test_a_kill_for_memory_elsewhere_does_not_explain_an_error_or_a_crash():
    assert ended(error="KeyError", message="'x'", exit_code=1, oom_kills=3).reason == "program_error"
    assert ended(signal=signal.SIGSEGV, oom_kills=3).reason == "program_error"


def test_a_warning_of_scoring_that_halves_its_batches_is_no_failure():
    log = "cuda is out of memory at 16384 tokens; batches so large are cut in half\nKeyError: 'x'\n"

    assert ended(exit_code=1, log=log).reason == "program_error"


def test_what_a_logger_puts_before_a_line_is_not_quoted():
    log = f"vllm | x\n(EngineCore pid=17) ERROR 09-28 15:47:24 [core.py:718] RuntimeError: {CUDA_OOM}\n"

    assert ended(exit_code=1, log=log).message.startswith("the device's memory is used up: RuntimeError: CUDA out of")


BAD_LOSS = "the usual cause is a learning rate that is too high; lower --lr (now 0.0002), or use --dtype float32"
CUT = "longer trajectories are cut; begins anew"
# Command, error, message, what else is known, and the whole remedy.
REMEDIES: list[tuple[str, str, str, dict[str, Any], str]] = [
    (TRAIN, "DeviceError", TRAIN_OOM, {},
     f"give --pack-length 4096 (now 8,192), or --max-length 4096 (now 8,192; {CUT})"),
    (f"{TRAIN} --no_gradient_checkpointing --pack_length=32768", "DeviceError", TRAIN_OOM, {},
     "give --gradient-checkpointing, or --pack-length 16384 (now 32,768), or --max-length 4096 (now 8,192; "
     f"{CUT})"),
    (f"{FULL} --nproc-per-node 8", "DeviceError", TRAIN_OOM, {},
     "give --pack-length 16384 (now 32,768), or --deepspeed zero3 (now zero2; begins anew), or --max-length 16384 "
     f"(now 32,768; {CUT})"),
    (f"{TRAIN} --nproc-per-node 2 --no-packing --batch-size 6 --global-batch 48", "DeviceError", TRAIN_OOM, {},
     "give --batch-size 3 (now 6), or --deepspeed zero2 (now none; begins anew), or --max-length 4096 (now 8,192; "
     f"{CUT})"),
    (f"{FULL} --recipe full_500 --pack-length 600 --max-length 600", "DeviceError", TRAIN_OOM, {},
     "give --nproc-per-node 2 --deepspeed zero3 (now 1 and zero2; needs 2 devices; begins anew)"),
    (f"{TRAIN} --max-length 512 --nproc-per-node 4 --device cuda", "MemoryError", "", {"memory_bytes": 16 * 10**9},
     "give --nproc-per-node 2 (now 4), or use a machine with more memory than 16.0 GB"),
    (TRAIN, "DeviceError", "qwen does not fit on cpu; use a smaller model or another device", {},
     "use a smaller model or another device"),
    ("lark sweep --scores s --model-path qwen --max-length 2048", "DeviceError", TRAIN_OOM, {},
     f"give --pack-length 1024 (now 2,048), or --max-length 1024 (now 2,048; {CUT})"),
    (SCORE, "OutOfMemoryError", CUDA_OOM, {}, "give --batch-tokens 8192 (now 16,384)"),
    (f"{SCORE} --dtype float32 --batch_tokens 4096", "OutOfMemoryError", CUDA_OOM, {},
     "give --batch-tokens 2048 (now 4,096), or --dtype bfloat16 (now float32; begins anew)"),
    ("lark score tokens --scores s --all", "OutOfMemoryError", CUDA_OOM, {}, "give --batch-tokens 8192 (now 16,384)"),
    (SCORE, "DeviceError", "a trajectory of 30112 tokens does not fit on cuda; lower --max-length", {},
     "give --max-length 15056 (now 32,768; longer ones are cut; begins anew)"),
    (SCORE, "DeviceError", "qwen does not fit on cuda; use a smaller model or another device", {},
     "use a smaller model or another device"),
    (f"{SCORE} --executor ray --num-workers 4 --device cpu", "DeviceError",
     "a worker died 4 times on the same batch; if its memory was too small, lower --batch-tokens or --num-workers", {},
     "give --num-workers 2 (now 4), or --batch-tokens 1024 (now 2,048)"),
    (GENERATE, "ServerError", server_ended(KV_CACHE), {},
     "give --max-model-len 34736 (now the model's own; begins anew), or --tensor-parallel-size 2 (now 1; needs 2 "
     "devices)"),
    (f"{GENERATE} --max-model-len 32768 --tensor-parallel-size 2 --replicas 4", "ServerError",
     server_ended(f"torch.OutOfMemoryError: {CUDA_OOM}"), {},
     "give --max-model-len 16384 (now 32,768; begins anew), or --tensor-parallel-size 4 --replicas 2 (now 2 and 4)"),
    (GENERATE, "ServerError", server_ended(f"torch.OutOfMemoryError: {CUDA_OOM}"), {},
     "give --max-model-len 16384 (now the model's own; begins anew), or --tensor-parallel-size 2 (now 1; needs 2 "
     "devices)"),
    (f"{GENERATE} --backend transformers", "OutOfMemoryError", CUDA_OOM, {}, "give --max-concurrency 8 (now 16)"),
    (f"{GENERATE} --replicas 8 --tensor-parallel-size 2", "DeviceError",
     "--replicas 8 of --tensor-parallel-size 2 need 16 CUDA devices, and 4 are visible", {},
     "give --replicas 2 (now 8)"),
    (f"{GENERATE} --start-timeout-s 900", "ServerError",
     "the vllm server for /m was not healthy within 900 s: loading; raise --start-timeout-s, or read /w/server.log", {},
     "give --start-timeout-s 1800 (now 900), or read /w/server.log"),
    (GENERATE, "ServerError", server_ended("ValueError: unknown architecture"), {},
     "read that log; run the same command again: it resumes"),
    ("lark pool import p.jsonl --workers 8", "MemoryError", "", {"memory_bytes": 8 * 10**9},
     "give --workers 4 (now 8), or use a machine with more memory than 8.0 GB"),
    ("lark grade --eval-dir e", "MemoryError", "", {}, "give --workers 8 (now 16)"),
    ("lark select --scores s", "MemoryError", "", {"memory_bytes": 8 * 10**9},
     "use a machine with more memory than 8.0 GB, or run less beside it"),
    (SCORE, "OSError", "[Errno 28] No space left on device", {"free_bytes": 300_000_000},
     "free some space (0.3 GB are left; `lark clean --dry-run` shows what can go), then run the same command again: it "
     "resumes"),
    (f"{TRAIN} --keep 3", "StoreError",
     "/w: a checkpoint needs 9.10 GB, and the disk has 8.00 GB left; free some and run the same command again: it "
     "resumes",
     {"free_bytes": 8_000_000_000},
     "free some space (8.0 GB are left; `lark clean --dry-run` shows what can go), or give --keep 1 (now 3), then run "
     "the same command again: it resumes"),
    (SCORE, "OSError", "[Errno 28] No space left on device: '/tmp/x'", {"free_bytes": 90_000_000_000},
     "free space on another disk (the workspace's has 90.0 GB left): check /tmp (TMPDIR), the Hugging Face cache "
     "(HF_HOME) and inodes (df -i), then run the same command again: it resumes"),
    (f"{TRAIN} --nproc-per-node 2", "TrainingError", trained(WATCHDOG), {},
     "run the same command again: it resumes; if it happens again: rank 1 waited in ALLREDUCE for the others, so check "
     "in their log that none had ended"),
    (f"{TRAIN} --nnodes 2 --node-rank 0 --rdzv-endpoint a:29500", "DistStoreError",
     "Timed out after 601 seconds waiting for clients. 1/2 clients joined.", {},
     "start the same command on all 2 machines, each with its own --node-rank, and check that a:29500 can be reached "
     "from all of them"),
    (f"{TRAIN} --lr 2e-4", "TrainingError", f"the loss became nan at step 3 (p:1): {BAD_LOSS}", {},
     "give --lr 0.0001 (now 0.0002; begins anew), or --dtype float32 (now bfloat16; begins anew)"),
    (f"{FULL} --deepspeed zero2_bf16", "TrainingError", f"the loss became inf at step 3 (p:1): {BAD_LOSS}", {},
     "give --lr 5e-06 (now 1e-05; begins anew)"),
    (SCORE, "ModuleNotFoundError", "No module named 'ray'", {}, "install Ray: pip install 'lark-studio[cluster]'"),
]  # fmt: skip


@pytest.mark.parametrize("command, error, message, known, remedy", REMEDIES, ids=range(len(REMEDIES)))
def test_the_remedy_follows_from_the_options(monkeypatch, command, error, message, known, remedy):
    monkeypatch.setattr(remedies, "_cores", lambda: 16)

    assert ended(command, error=error, message=message, **known).remedy == remedy


@pytest.mark.parametrize(
    "has_gpu, remedy",
    [
        (False, f"give --pack-length 4096 (now 8,192), or --max-length 4096 (now 8,192; {CUT}), or use a machine with "
                "more memory than 8.0 GB"),
        (True, "use a machine with more memory than 8.0 GB, or run less beside it"),
    ],
)  # fmt: skip
def test_less_work_at_once_helps_the_machine_only_where_it_computes(monkeypatch, has_gpu, remedy):
    monkeypatch.setattr(remedies, "_has_gpu", lambda: has_gpu)

    assert ended(TRAIN, signal=signal.SIGKILL, oom_kills=1, memory_bytes=8 * 10**9).remedy == remedy


def test_a_recipe_of_the_users_is_read(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("max_seq_length: 4000\nper_device_train_batch_size: 1\ngradient_accumulation_steps: 8\n")

    remedy = ended(f"{TRAIN} --sft_config {recipe}", error="DeviceError", message=TRAIN_OOM).remedy

    assert remedy.startswith("give --pack-length 2000 (now 4,000), or ")


def test_the_remedy_for_a_run_is_a_line_of_its_recipe(tmp_path):
    recipe = tmp_path / "run.yaml"
    recipe.write_text(
        "name: r\nstudent: qwen\npool: {source: p.jsonl}\ntrain: {recipe: lora, gradient_checkpointing: false}\n"
        "generate: {benchmark: aime24, start_timeout_s: 60}\n"
    )
    late = "the vllm server for /m was not healthy within 60 s: loading; raise --start-timeout-s, or read /w/s.log"

    assert ended(f"lark run {recipe}", error="DeviceError", message=TRAIN_OOM).remedy == (
        "set `gradient_checkpointing: true`, or `pack_length: 4096` (now 8,192), or `max_length: 4096` (now 8,192; "
        f"{CUT}) under train in {recipe}"
    )
    assert ended(f"lark run {recipe}", error="ServerError", message=late).remedy == (
        f"set `start_timeout_s: 120` (now 60) under generate in {recipe}, or read /w/s.log"
    )


@pytest.mark.parametrize(
    "command",
    ["", "lark run /gone.yaml", *(f"lark train lora {flag}" for flag in ("--recipe /x.yaml", "--lr x", "--lr"))],
)
def test_options_that_cannot_be_told_leave_the_stages_own_remedy(command):
    assert ended(command, error="DeviceError", message=TRAIN_OOM).remedy == TRAIN_OOM.split("; ", 1)[1]


def alternatives(remedy: str) -> list[list[str]]:
    """The flags of each alternative of a remedy."""
    found = [re.findall(r"--[\w-]+(?: (?!--)[\w.-]+)?", part.split(" (")[0]) for part in remedy.split(", or ")]
    return [shlex.split(" ".join(flags)) for flags in found if flags]


@pytest.mark.parametrize("message", [TRAIN_OOM, TRAIN_OOM.replace("cuda", "cpu")], ids=["device", "host"])
def test_what_is_proposed_for_training_is_new_and_not_refused(message):
    proposed = 0
    for method, deepspeed, packing, processes, checkpointing, dtype in itertools.product(
        ("lora", "full"), ("none", "zero2", "zero3", "mine.json"), ("packing", "no-packing --batch-size 4"), (1, 2, 64),
        ("gradient-checkpointing", "no-gradient-checkpointing"), ("bfloat16", "float32"),
    ):  # fmt: skip
        if (method, deepspeed) == ("lora", "zero3"):
            continue
        options = f"--{packing} --{checkpointing} --nproc-per-node {processes} --dtype {dtype} --deepspeed {deepspeed}"
        words = shlex.split(options)
        recipe = {**train_recipe("lora" if method == "lora" else "full_5000"), "student": "q", "method": method}
        before = TrainConfig.parse({**recipe, **given_options(words, TrainConfig)}, "before")
        remedy = ended(f"lark train {method} {options}", error="DeviceError", message=message).remedy
        for flags in alternatives(remedy):
            after = TrainConfig.parse({**recipe, **given_options([*words, *flags], TrainConfig)}, "after")
            assert after != before, remedy
            # What `plan_train` and `cut_steps` refuse beyond the config.
            assert (after.method, after.deepspeed) != ("lora", "zero3"), remedy
            uneven = [c.global_batch % (c.batch_size * c.num_processes) for c in (before, after)]
            assert after.packing or uneven[0] or not uneven[1], remedy
            proposed += 1
    assert proposed > 200


def test_what_is_proposed_for_scoring_and_generating_is_new_and_not_refused():
    rays = ("", "--executor ray", "--executor ray --num-workers 3")
    score = itertools.product(("--device cpu", "--device cuda"), rays, ("", "--batch-tokens 1024", "--batch-tokens 3"))
    generate = itertools.product(
        ("--backend vllm", "--backend sglang", "--backend transformers"), ("", "--replicas 0", "--replicas 3"),
        ("", "--max-model-len 700", "--max-concurrency 1 --dtype float32"),
    )  # fmt: skip
    proposed = 0
    for model, command, options in (
        *((ScoreConfig, "lark score --student q", " ".join(given)) for given in score),
        *((GenerateConfig, "lark generate --benchmark a", " ".join(given)) for given in generate),
    ):
        words = shlex.split(f"{command} {options}")
        before = model.parse(given_options(words, model), "before")
        for error, message in (("MemoryError", ""), ("OutOfMemoryError", CUDA_OOM)):
            for flags in alternatives(ended(shlex.join(words), error=error, message=message).remedy):
                assert model.parse(given_options([*words, *flags], model), "after") != before, (words, flags)
                proposed += 1
    assert proposed > 40


def test_flags_are_read_as_the_command_line_reads_them():
    words = shlex.split(
        "--pool --x --max_length=10 --lr 2e-4 --lr 3e-4 --no-packing --report-to a --report_to=b --seed"
    )

    assert given_options(words, TrainConfig) == {
        "max_length": "10", "lr": "3e-4", "packing": False, "report_to": ["a", "b"], "seed": "",
    }  # fmt: skip


@pytest.mark.parametrize("start", ["lark", "python -m lark_engine.cli", "/e/bin/python -m lark_engine.cli"])
def test_the_stage_is_found_in_whatever_way_lark_is_started(start):
    assert stage_of(shlex.split(f"{start} train lora --model-path q --lr 3e-4")).config.lr == 3e-4


def test_the_defaults_are_those_of_the_stages():
    from lark_engine.scoring.planner import BATCH_TOKENS

    backends = (Path(remedies.__file__).parents[1] / "evaluation" / "backends.py").read_text()

    assert SCORE_TOKENS == BATCH_TOKENS
    assert f"_IN_FLIGHT = {IN_FLIGHT}".replace("'", '"') in backends


def test_control_characters_reach_nobody():
    failure = ended(error="PoolError", message="a\x1b[2J\x07.jsonl:3: \x00has\r\nno text; give\x1b]0;x\x07 one")

    assert all(text.isprintable() for text in (failure.message, failure.place or "", failure.remedy))
    assert failure.place == "a [2J .jsonl:3"


@pytest.mark.parametrize(
    "piece",
    [
        "a", "_", " ", "\n", "\r", ": ", "a.", "x:1", "Error\n", "A.b.c.Error: ", "; give", "\x1b[", "│ ", "lark: ",
        "gloo/transport", "[Rank 1] Watchdog caught", "(EngineCore pid=1) ", "\ud800\udfff\x00", "No such file", "'",
        "DataLoader worker (pid", "Tried to allocate 2.00 GiB. ", "/dev/shm", "[rank1]: ", "\u202e", "/psm_",
        "ended with status -",
    ],
    ids=range(27),
)  # fmt: skip
def test_a_hostile_text_is_classified_all_the_same(piece):
    text = piece * (65536 // len(piece))

    for known in ({"exit_code": 2, "log": f"lark: {text}"}, {"signal": signal.SIGABRT, "log": text}):
        assert ended(TRAIN, **known).remedy
    for error in ("PoolError", "TrainingError", "did_you_mean", text[:1000]):
        failure = ended(TRAIN, error=error, message=text)
        assert len(failure.message) <= 1000 and len(failure.remedy) <= 1000


@pytest.mark.parametrize(
    "command", ["train", "lark run", "lark train", "lark score --top-k \x00", "-- = --=", "lark grade show"]
)
def test_a_command_of_nonsense_is_no_trouble(command):
    for error in ("OutOfMemoryError", "MemoryError", "DistStoreError"):
        assert ended(command, error=error, message="").remedy


def run_child(code: str, **known: Any) -> Failure:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    how = {"signal": -done.returncode} if done.returncode < 0 else {"exit_code": done.returncode}
    return ended("lark score", log=done.stdout + done.stderr, **how, **known)


def test_real_children():
    limited = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 29,) * 2); "
    kill = "import os, signal; os.kill(os.getpid(), signal.{})"

    assert run_child(f"{limited}x = bytearray(1 << 40)").reason == "host_memory"
    # Its threads take address space before the limit is there.
    assert run_child(f"import numpy; {limited}numpy.ones((1 << 20, 1 << 12))").reason == "host_memory"
    assert run_child("import no_such_library_of_anyone").message == (
        "a library is missing or does not fit the others: ModuleNotFoundError: No module named "
        "'no_such_library_of_anyone'"
    )
    assert run_child("open('/dev/full', 'wb', 0).write(b'x')").reason == "disk_full"
    assert run_child(kill.format("SIGKILL")).reason == "killed"
    assert run_child(kill.format("SIGKILL"), oom_kills=1).reason == "host_memory"
    assert run_child(kill.format("SIGBUS")).reason == "host_memory"
    assert run_child("import ctypes; ctypes.string_at(0)").message == "the program crashed (SIGSEGV)"
    assert run_child("import os; os.abort()").message == "the program gave up (SIGABRT)"
    assert run_child("{}['messages']").message == "the program failed: KeyError: 'messages'"
    assert run_child("import sys; sys.exit(3)").message == "the program ended with exit code 3 and said nothing"


def test_the_leash_passes_a_signal_on_as_a_status_that_is_understood():
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    leashed = [sys.executable, "-m", "lark_engine.leash", sys.executable, "-c", kill]
    with subprocess.Popen(leashed, stdin=subprocess.PIPE) as child:
        status = child.wait()

    assert ended(error="TrainingError", message=trained("=====", status)).reason == "killed"


def test_it_is_light_to_hold():
    heavy = "{'torch', 'pandas', 'numpy', 'pydantic', 'transformers'}"
    code = f"import lark_engine.jobs.failures, sys; sys.exit(bool({heavy} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
