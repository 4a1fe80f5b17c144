"""The numbers of the published comparison (DINO-QPM, table 1), which `table.py` prints below those of the runs."""

# DINO-QPM (arXiv 2604.07166), table 1, in percent: accuracy, plausibility, SID@5, class-independence, contrastiveness;
# None is not given.
PUBLISHED_MEASURES = ("accuracy", "plausibility", "sid", "class_independence", "contrastiveness")
PUBLISHED: dict[str, dict[str, tuple[float | None, ...]]] = {
    "CUB-200-2011": {
        "CLS linear probe (DINOv2)": (87.9, 42.6, 50.9, 99.2, 59.2),
        "dense model (DINOv2)": (78.1, 32.7, 91.8, 98.8, 84.5),
        "dense model (ResNet-50)": (83.9, 60.7, 57.1, 98.0, 74.6),
        "QPM (ResNet-50)": (82.9, 82.9, 89.6, 96.8, 93.6),
        "SLDD (DINOv2)": (84.6, 78.0, 88.7, 94.4, 93.0),
        "Q-SENN (DINOv2)": (85.4, 86.0, 91.5, 93.6, 94.4),
        "QPM (DINOv2)": (88.3, 95.0, 90.1, 93.7, 100.0),
    },
    "Stanford Cars": {
        "CLS linear probe (DINOv2)": (91.7, None, 51.5, 99.1, 60.9),
        "dense model (DINOv2)": (92.9, None, 93.1, 98.7, 82.8),
        "dense model (ResNet-50)": (92.5, None, 51.5, 97.9, 75.1),
        "QPM (ResNet-50)": (92.1, None, 88.2, 97.8, 97.1),
        "SLDD (DINOv2)": (92.9, None, 90.9, 93.9, 94.9),
        "Q-SENN (DINOv2)": (93.3, None, 92.6, 94.0, 94.9),
        "QPM (DINOv2)": (94.0, None, 91.7, 93.7, 100.0),
    },
}
