"""The page is complete, and a browser sees in an image what JAX sees."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from pnet_jax.convert import classify, web
from pnet_jax.data.crop import central_crop
from pnet_jax.data.decode import decode
from pnet_jax.errors import UserError
from tests.convert.onnx.networks import SIZE, ghostnet, source_of

pytestmark = pytest.mark.torch

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def source():
    return source_of(ghostnet(num_experts=2, routing="softmax_linear"))


@pytest.fixture
def workdir(source, monkeypatch, tmp_path):
    monkeypatch.setattr(web, "open_source", lambda workdir, **_: source)
    return tmp_path / "run"


def test_page_is_complete(workdir, tmp_path):
    dist = tmp_path / "dist"
    dist.mkdir()
    with pytest.raises(UserError, match=r"has no ort\.wasm\.min\.mjs; name the folder dist"):
        web.export_web(workdir, tmp_path / "page", runtime=dist)
    assert not (tmp_path / "page").exists()
    for name in web.RUNTIME_FILES:
        (dist / name).write_text(name)
    out = tmp_path / "page"
    assert web.export_web(workdir, out, runtime=dist).difference < 1e-4
    told = json.loads((out / "network.json").read_text())
    assert (told["preprocessing"]["image_size"], told["classes"][1]) == (SIZE, "class 1")
    script = (out / "classify.mjs").read_text()
    for name in (web.NETWORK, "network.json", web.RUNTIME_FILES[0]):
        assert name in script
        assert (out / name).is_file()
    assert 'src="classify.mjs"' in (out / "index.html").read_text()


def test_without_npm_the_remedy_is_told(workdir, tmp_path, monkeypatch):
    monkeypatch.setattr(web.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="npm is not installed; unpack onnxruntime-web"):
        web.export_web(workdir, tmp_path / "page")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which is not installed")
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm, which is not installed")
def test_browser_sees_what_jax_sees(workdir, source, tmp_path):
    out = tmp_path / "page"
    web.export_web(workdir, out)
    rng = np.random.default_rng(0)
    network = classify.of_source(source)
    # Larger than the network's images, and smaller.
    for number, shape in enumerate(((90, 70), (24, 31))):
        image = cv2.resize(rng.integers(0, 256, (5, 5, 3), np.uint8), shape)
        assert cv2.imwrite(str(out / f"{number}.png"), image)
        encoded = (out / f"{number}.png").read_bytes()
        pixels = central_crop(decode(encoded), SIZE, share=0.875)
        logits = network.logits_of(pixels[None])[0]
        expected = np.exp(logits) / np.exp(logits).sum()
        seen = _shown(out, f"index.html?image={number}.png", tmp_path / f"profile{number}")
        found = re.findall(r'data-class="(\d+)".*?<b>([\d.]+)%</b>', seen)
        assert [int(k) for k, _ in found] == list(np.argsort(-expected)[:5])
        shares = [float(percent) / 100 for _, percent in found]
        # Pixels may be rounded the other way.
        np.testing.assert_allclose(shares, np.sort(expected)[::-1][:5], atol=0.01)
        assert float(re.search(r">([\d.]+) ms<", seen).group(1)) > 0


# Shows a page in a frame, and sends what it became to the test.
_WATCH = """<iframe id="frame" src="PAGE"></iframe><script>
setInterval(() => {
  const body = document.getElementById("frame").contentDocument?.body;
  if (body?.dataset.done) fetch("/done", { method: "POST", body: body.outerHTML });
}, 100);
</script>"""


def _shown(directory, page, profile):
    """The page's body after it has classified, as HTML."""
    (directory / "watch.html").write_text(_WATCH.replace("PAGE", page))
    done, said = threading.Event(), []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_POST(self):
            said.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()
            done.set()

        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/watch.html"
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"]
        browser = subprocess.Popen(
            # It goes on running until it is told to stop, with a port to be told at.
            [*command, f"--user-data-dir={profile}", "--remote-debugging-port=0", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert done.wait(timeout=90), "the page did not finish"
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
    return said[0]
