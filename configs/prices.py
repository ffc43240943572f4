"""What an hour of one chip costs, in US dollars. Edit it: prices change by region, contract and week.

A line a chip: on demand, spot (None: unknown), where it stands, when it was read there. A chip without a line is planned without
a cost. TPU prices are of us-central1; a v5p-8 machine has 4 chips. GPU prices are of one GPU and include its share of the host.
"""

from alif_jax.plan import Price

SKYPILOT = "github.com/skypilot-org/skypilot-catalog, catalogs/v8/gcp/vms.csv at 006059e"
GPU_LIST = "github.com/tgarg01/silybench-data, derived/csv/gpu_prices.csv"

PRICES: dict[str, Price] = {
    "v5e": Price(1.20, 0.245, f"Google Cloud, {SKYPILOT} (cloud.google.com/tpu/pricing)", "2026-11-21"),
    "v5p": Price(4.20, 0.836, f"Google Cloud, {SKYPILOT} (cloud.google.com/tpu/pricing)", "2026-11-21"),
    "v6e": Price(2.70, 0.544, f"Google Cloud, {SKYPILOT} (cloud.google.com/tpu/pricing)", "2026-11-21"),
    "h100": Price(3.99, None, f"Lambda, 8x H100 SXM, lambda.ai/pricing by {GPU_LIST}", "2026-09-25"),
    "h100-pcie": Price(2.89, None, f"RunPod, Secure Cloud, runpod.io/pricing by {GPU_LIST}", "2026-09-25"),
    "h100-nvl": Price(3.19, None, f"RunPod, Secure Cloud, runpod.io/pricing by {GPU_LIST}", "2026-09-25"),
    "h200": Price(4.59, None, f"RunPod, Secure Cloud, runpod.io/pricing by {GPU_LIST}", "2026-09-25"),
    "a100-80g": Price(2.79, None, f"Lambda, 8x A100 SXM, lambda.ai/pricing by {GPU_LIST}", "2026-09-25"),
    "a100-40g": Price(1.99, None, f"Lambda, 1x A100 SXM, lambda.ai/pricing by {GPU_LIST}", "2026-09-25"),
    "rtx4090": Price(0.74, None, f"RunPod, Secure Cloud, runpod.io/pricing by {GPU_LIST}", "2026-09-25"),
    "l4": Price(None, None, "unknown", ""),
}
