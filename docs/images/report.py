"""The picture of the README: the first screen of a report of the gallery.

python docs/images/report.py     # needs Debian's chromium, and playwright of the extra `dev`
"""

import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
PAGE = HERE.parent / "gallery" / "cifar10-resnet20" / "report.html"

if __name__ == "__main__":
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 1020}, color_scheme="light", device_scale_factor=1.5)
        page.goto(PAGE.as_uri())
        page.wait_for_timeout(2000)  # the plots are drawn after the page has loaded
        shot = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    shot.convert("RGB").save(HERE / "report.webp", quality=80, method=6)
    print(f"{HERE / 'report.webp'}: {(HERE / 'report.webp').stat().st_size / 1000:.0f} kB")
