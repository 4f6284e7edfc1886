"""Draw docs/live.png, four pictures of a scan that grows: ``python docs/live.py``."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

import ptycho_fast as pf
from ptycho_fast.live.zmq import message

mpl.use("Agg")
import matplotlib.pyplot as plt
import zmq

HERE = Path(__file__).resolve().parent
SHOWN = (200, 400, 600, 800)

scan = pf.simulate_scan(n_positions=SHOWN[-1], N=32, seed=0)
pictures, done = [], 0
with zmq.Context() as context, context.socket(zmq.PUSH) as sender:
    port = sender.bind_to_random_port("tcp://127.0.0.1")
    updates = pf.follow(f"tcp://127.0.0.1:{port}", unit="px", counts=False)
    sender.send_multipart(message("probe", scan.probe))
    for n in SHOWN:
        # 50 at a time, as a detector would send them.
        for low in range(done, n, 50):
            some = slice(low, low + 50)
            sender.send_multipart(message("frames", scan.diffraction[some], low))
            sender.send_multipart(message("positions", scan.positions[some], low))
            while (update := next(updates)).n < low + 50:
                pass
        pictures.append(update.image)
        done = n
    updates.close()

figure, panels = plt.subplots(1, len(SHOWN), figsize=(9.6, 2.6), layout="constrained", dpi=90)
last = pictures[-1]
lit = 0.1 * np.median(last.coverage[last.coverage > 0])
for panel, image, n in zip(panels, pictures, SHOWN, strict=True):
    seen = image.coverage > lit
    turned = np.vdot(np.ones(seen.sum()), image.object[seen])
    phase = np.where(seen, np.angle(image.object * np.conj(turned)), np.nan)
    panel.imshow(phase, "viridis", vmin=-1, vmax=1, extent=image.canvas.extent)
    panel.set(
        xlim=last.canvas.extent[:2], ylim=last.canvas.extent[2:], xticks=[], yticks=[],
        title=f"{n} frames",
    )  # fmt: skip
figure.savefig(HERE / "live.png", pil_kwargs={"optimize": True})
