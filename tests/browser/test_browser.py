"""What a reader sees, in a real browser: the report's page on a phone, and notebook 3 in JupyterLab."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import cv2
import nbformat
import numpy as np
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from helpers import paths, zoo
from helpers.measure import records
from helpers.measure.records import Latency, Record
from helpers.show import draw, figures, report
from helpers.show.report import Source
from tests.notebooks.runner import kernel_start

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here (apt install chromium)")

PHONE = {"width": 400, "height": 900}
ATTACK = "<script>document.title = 'taken'</script><img src='http://192.0.2.1/x.png'>"
TOKEN = "a-token-for-this-test"
# No question about news when it opens, and all cells in the page, not only those in view.
LAB_SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium."""
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


# -- the report ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A report with every kind of table, figures, something broken and something hostile."""
    folder = tmp_path_factory.mktemp("report")
    shape = {"batch_size": 1, "input_shape": [1, 3, 512, 512], "model_bytes": 40_000_000, "build_s": 0.5}
    spent = {"stage_ms": {"load": 1.0, "pre": 9.0, "infer": 180.0, "decode": 10.0}, "whole_images_per_s": 3.4}
    scored = {"dataset": "demo val2017", "images": 256, "ap": 0.7609, "ar": 0.8224}
    made = {"machine": records.machine(), "versions": records.versions(), "when": records.now(), "command": ATTACK}
    rows = [
        Record(model, "demo", backend, precision, latency_ms=latency, **shape, **spent, **scored, **made)
        for model in zoo.NETWORKS
        for backend, latency in (("onnxruntime", Latency(90.0, 95.0, 96.0, 99.0, 91.0)), ("magicmind", None))
        for precision in zoo.PRECISIONS
    ]
    charts = [figures.save(figures.bars({"a": {"b": 1}}, ATTACK), folder / f"0{k}_x.png") for k in (3, 4)]
    problems = [f"/a/very/long/path/{'without_a_space' * 12}.json was skipped: {ATTACK}"]
    return report.write(folder / "report.html", Source(rows, problems, charts))


@pytest.fixture
def phone(browser, page_file):
    """The report on a phone; the page, what it asked for, and what went wrong in it."""
    context = browser.new_context(viewport=PHONE, color_scheme="light", is_mobile=True, has_touch=True)
    page, asked, wrong = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(page_file.as_uri(), wait_until="networkidle")
    yield page, asked, wrong
    context.close()


def test_the_report_asks_for_nothing_and_runs_nothing(phone, page_file):
    page, asked, wrong = phone
    page.mouse.wheel(0, 100_000)
    page.wait_for_timeout(200)
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
    assert wrong == []
    assert page.title() == "Bottom-up pose models, deployed: measurements"
    images = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth)")
    assert len(images) == 2
    assert min(images) > 500


def test_nothing_of_the_report_is_wider_than_a_phone(phone):
    page, _, _ = phone
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    boxes = page.locator(".scroll")
    assert boxes.count() >= 6
    for index in range(boxes.count()):
        box = boxes.nth(index).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
    wide = page.locator(".scroll", has_text="p50 ms").last
    assert wide.evaluate("box => box.scrollWidth > box.clientWidth"), "else there is nothing to scroll in this test"
    assert wide.evaluate("box => { box.scrollLeft = 80; return box.scrollLeft }") == 80


def test_a_figure_opens_large_and_closes_again(phone):
    page, _, _ = phone
    figure = page.locator("figure").first
    before = figure.locator("img").bounding_box()["width"]
    figure.locator("a.open").tap()
    assert figure.locator("img").bounding_box()["width"] > 2 * before
    figure.locator("a.close").tap()
    assert figure.locator("img").bounding_box()["width"] == before


def test_the_report_is_dark_where_the_reader_wants_that(phone):
    page, _, _ = phone
    brightness = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        shown = [page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color")]
        ground, ink = (sum(map(int, color[4:-1].split(","))) / 3 for color in shown)
        brightness[scheme] = ground - ink
    assert brightness["light"] > 150
    assert brightness["dark"] < -150


# -- notebook 3 ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def jupyterlab(folder, home):
    """JupyterLab on a folder, with settings, data and runtime files of its own; its address."""
    for plugin, settings in LAB_SETTINGS.items():
        file = home / "settings" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    kernel_start(home / "ipython")
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    environment = {
        **os.environ,
        **{name: str(home / name.lower()) for name in places},
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "IPYTHONDIR": str(home / "ipython"),
        "MODEL_PATH": str(home / "models"),
        "PYTHONPATH": str(paths.root()),
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}", "--ServerApp.port_retries=0"]
    command += ["--ServerApp.ip=127.0.0.1", "--LabApp.expose_app_in_browser=True"]
    with (home / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{address}/api/status?token={TOKEN}"), 60, home / "lab.log")
        yield address
    finally:
        server.terminate()  # it ends its kernels
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def wait_for(ready, seconds: float, log) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def infer(browser, tmp_path_factory):
    """Notebook 3 in JupyterLab, all cells run once: the page, and the notebook as it is there."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    folder.mkdir()
    quick = {"image_num": 2, "compare_num": 1, "compare": ["force_float32"]}
    (home / "data").mkdir()
    (home / "data" / "demo").symlink_to(paths.demo_data())
    source = load_notebook_node(str(paths.root() / "notebooks" / "03_infer.ipynb"))
    nbformat.write(parameterize_notebook(source, {**quick, "out": str(home / "output")}), folder / "03_infer.ipynb")
    with jupyterlab(folder, home) as address:
        context = browser.new_context(viewport={"width": 1280, "height": 1000})
        page = context.new_page()
        page.goto(f"{address}/lab/tree/03_infer.ipynb?token={TOKEN}")
        notebook = "window.jupyterapp?.shell.currentWidget"
        page.wait_for_function(f"{notebook}?.sessionContext?.session?.kernel", timeout=60_000)
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")  # until the last cell is done
        document = page.evaluate(f"{notebook}.content.model.sharedModel.toJSON()")
        yield page, document
        context.close()


def colorful(image: np.ndarray) -> int:
    """How many pixels of (H, W, 3) uint8 BGR have a color that people are painted in, or its darker tone."""
    count = np.zeros(image.shape[:2], bool)
    for color in draw.PERSON_COLORS:
        red, green, blue = (int(color[k : k + 2], 16) for k in (1, 3, 5))
        for tone in (1, 0.62):
            count |= (np.abs(image - np.array([blue, green, red]) * tone) < 24).all(axis=2)
    return int(count.sum())


def test_notebook_3_runs_in_jupyterlab(infer):
    _, document = infer
    cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert all(cell["execution_count"] for cell in cells if cell["source"])
    shown = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(shown) >= 7
    image = cv2.imdecode(np.frombuffer(base64.b64decode(shown[0]), np.uint8), cv2.IMREAD_COLOR)
    assert colorful(image) > 1000


def widget_image(page) -> np.ndarray:
    """The image of the panel as the browser has it, (H, W, 3) uint8 BGR."""
    encoded = page.locator("img.widget-image").last.evaluate(
        """async image => {
            const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
            return btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(""));
        }"""
    )
    return cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR)


def move(page, slider, key: str, readout: str) -> np.ndarray:
    """Presses a key on a slider's handle; the image that comes of it."""
    image = page.locator("img.widget-image").last
    before = image.get_attribute("src")
    slider.locator(".noUi-handle").press(key)
    playwright.expect(slider.locator(".widget-readout")).to_have_text(readout)
    playwright.expect(image).not_to_have_attribute("src", before)
    return widget_image(page)


def test_a_slider_of_notebook_3_paints_another_image(infer):
    """Keypoints with a score up to the threshold go: at 1 none is left, at 0 all are there, at the start most."""
    page, _ = infer
    slider = page.locator(".jupyter-widgets.widget-slider", has_text="keypoint threshold")
    slider.scroll_into_view_if_needed()
    start = widget_image(page)
    bare, full = move(page, slider, "End", "1.00"), move(page, slider, "Home", "0.00")
    assert start.shape == bare.shape == full.shape
    painted = [int((np.abs(image.astype(int) - bare).max(axis=2) > 60).sum()) for image in (start, full)]
    assert 2000 < painted[0] <= painted[1]
    assert colorful(full) > colorful(bare) + 1000
