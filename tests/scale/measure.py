"""What is promised of many devices, measured: `python -m tests.scale.measure speed kills headroom` (all by default).

    speed      images/s of 1 and 2 workers, a core each, taking turns; the results files compared byte by byte
    kills      2 workers, one of them killed (SIGKILL) at a random moment, ten times; what is found, and AP
    headroom   a million images through workers whose engine is a stub: memory of the driver, cost of everything else

Ray has to be installed, and the machine should have nothing else to do: the load average is printed beside the figures.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

from helpers import backends, paths
from helpers.dataset import CocoDataset
from helpers.export import export
from helpers.measure import evaluate, records, tables
from helpers.pose.estimator import STAGES, PoseEstimator
from helpers.scale_out import Fleet, Setup
from tests.scale.stub import StubSetup


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["speed", "kills", "headroom"])
    parser.add_argument("--images", type=int, default=200, help="of speed")
    parser.add_argument("--rounds", type=int, default=2, help="of speed")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--many", type=int, default=1_000_000, help="images of headroom")
    args = parser.parse_args()
    machine = records.machine()
    print(f"{machine['cpu']}, {machine['cores']} cores; load average {os.getloadavg()[0]:.1f}", flush=True)
    met = [{"speed": speed, "kills": kills, "headroom": headroom}[name](args) for name in args.what]
    return 0 if all(met) else 1


def setup() -> Setup:
    onnx_file = export.export("MobileNetv2", "demo")
    return Setup("onnxruntime", backends.get("onnxruntime").build(onnx_file, backends.BuildSpec()))


def results(run: evaluate.Evaluation, dataset: CocoDataset, path: Path) -> bytes:
    """The results file, as `eval --out` writes it."""
    return evaluate.save_results(path, evaluate.to_coco_results(run.poses, dataset.category_id)).read_bytes()


def speed(args: argparse.Namespace) -> bool:
    """At least 1.7 times the images/s with two workers, and the same file."""
    dataset = CocoDataset(paths.demo_data())
    image_ids = dataset.sample(args.images)
    fastest, files = {1: 0.0, 2: 0.0}, []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.rounds):
            for count in (1, 2):
                began = time.perf_counter()
                with Fleet(setup(), range(count)) as fleet:
                    start = time.perf_counter()
                    run = evaluate.run(fleet, dataset, image_ids)
                    seconds = time.perf_counter() - start
                    table = tables.align(fleet.table())
                whole = time.perf_counter() - began
                files.append(results(run, dataset, Path(folder, "results.json")))
                fastest[count] = max(fastest[count], len(image_ids) / seconds)
                stages = ", ".join(f"{stage} {run.stage_ms[stage]:.1f}" for stage in STAGES)
                print(
                    f"turn {turn + 1}, {count} worker(s): {len(image_ids) / seconds:.2f} images/s, {seconds:.1f} s, "
                    f"{whole:.1f} s with start and end; ms per image: {stages}; load {os.getloadavg()[0]:.1f}\n{table}",
                    flush=True,
                )
    print(f"2 workers / 1 worker: {fastest[2] / fastest[1]:.2f}x; the same file: {len(set(files)) == 1}", flush=True)
    return fastest[2] >= 1.7 * fastest[1] and len(set(files)) == 1


def kills(args: argparse.Namespace) -> bool:
    """Every image once, and the same numbers, whenever a worker is killed."""
    dataset = CocoDataset(paths.demo_data())
    image_ids = dataset.sample(16)
    names = [str(dataset.path(image_id)) for image_id in image_ids]
    wanted = evaluate.run(PoseEstimator(backends.get("onnxruntime").load(setup().built)), dataset, image_ids)
    good = 0
    with tempfile.TemporaryDirectory() as folder, Fleet(setup(), [0, 1]) as fleet:
        reference = results(wanted, dataset, Path(folder, "wanted.json"))
        for seed in range(args.kills):
            draw, before = random.Random(seed), lost(fleet)
            moment, delay, which = draw.randrange(1, len(names) - 4), draw.uniform(0, 0.5), draw.random()

            def strike(done: int, *_: int, at: tuple = (moment, delay, which)) -> None:
                if done == at[0]:
                    time.sleep(at[1])
                    kill_one(fleet, at[2])

            run = evaluate.run(fleet, dataset, image_ids, progress=strike)
            once = list(run.poses) == image_ids
            same = results(run, dataset, Path(folder, "found.json")) == reference and run.stats == wanted.stats
            while lost(fleet) == before:  # until the new process has answered: the next kill has two to choose from
                list(fleet.stream(names[:2]))
            good += once and same and lost(fleet) == before + 1
            print(f"seed {seed}: killed {delay:.2f} s after image {moment}; each once {once}, same {same}", flush=True)
    print(f"{good} of {args.kills} complete, without duplicates, AP {wanted.stats.numbers['AP']:.4f} as in one process")
    return good == args.kills


def lost(fleet: Fleet) -> int:
    return sum(row["workers lost"] for row in fleet.table())


def kill_one(fleet: Fleet, which: float) -> None:
    pids = sorted(fleet.processes().values())
    os.kill(pids[int(which * len(pids))], signal.SIGKILL)


def headroom(args: argparse.Namespace) -> bool:
    """Memory of the driver, and what an image costs besides its stages: the engine is a stub that finds two people."""
    names = (f"/archive/{k // 1000:06}/{k:012}.jpg" for k in range(args.many))
    seen: list[tuple[int, float]] = []
    with Fleet(StubSetup("stub", "x", people=2), [0, 1]) as fleet:
        start, cpu = time.perf_counter(), own_cpu_s()
        for count, _ in enumerate(fleet.stream(names), 1):
            if count * 10 // args.many > len(seen) - 1:
                seen.append((count, rss_mb()))
        wall, driver = time.perf_counter() - start, own_cpu_s() - cpu
        busy = sum(row["busy, s"] for row in fleet.table())
    print("driver, MB after images: " + ", ".join(f"{done}: {mb:.0f}" for done, mb in seen))
    print(f"{count} images, engine stubbed, in {wall:.0f} s")
    per_image = {
        "driver's CPU": driver / count,
        "workers waiting": max(2 * wall - busy, 0) / count,
        "workers, the stub": busy / count,
    }
    print("ms per image: " + ", ".join(f"{name} {1e3 * value:.3f}" for name, value in per_image.items()))
    alone = PoseEstimator(backends.get("onnxruntime").load(setup().built))
    dataset = CocoDataset(paths.demo_data())
    stages = sum(evaluate.run(alone, dataset, dataset.sample(16)).stage_ms.values())
    scheduling = 1e3 * (per_image["driver's CPU"] + per_image["workers waiting"])
    print(
        f"scheduling {scheduling:.3f} ms per image: {scheduling / stages:.2%} of the {stages:.0f} ms of the stages here"
    )
    return seen[-1][1] < 1.1 * seen[1][1] and scheduling < 0.05 * stages


def rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
