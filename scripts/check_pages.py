#!/usr/bin/env python3
"""Opens the pages of a run's report in headless Chromium and uses them as a person would.

    scripts/check_pages.py runs/le-depeupleur-e76172bb/report [more folders or pages]

Needs Chromium with its driver (Debian: chromium, chromium-driver) and `pip install selenium`. At 1280 and 360 px wide,
in every language of a page: nothing is blocked or missing, no picture is broken, nothing is wider than the window, every link
leads somewhere, Tab reaches everything that can be used in the order in which it is read, Enter opens what is folded, and
each state of a switch shows something else. Exit code: 0 if all holds, 1 with a list if not.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

WIDTHS_PX = (1280, 360)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
# What Tab stops at: one stop for a whole group of radio buttons, none in what is folded.
FOCUSABLE = """
const seen = new Set();
return [...document.querySelectorAll('a[href], summary, input, [tabindex="0"]')].filter(e => {
  const closed = e.parentElement.closest('details:not([open])');
  if (closed && !(e.tagName === 'SUMMARY' && e.parentElement === closed)) return false;
  if (e.type === 'radio') { if (seen.has(e.name)) return false; seen.add(e.name); }
  return e.getClientRects().length > 0;
}).length"""
BROKEN = "return [...document.images].filter(i => i.complete && !i.naturalWidth && i.loading != 'lazy').map(i => i.src)"
WIDE = """
const most = document.documentElement.clientWidth + 1;
return [...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > most
  && !e.closest('.scroll, pre, svg, .sr, table')).map(e => e.tagName + '.' + e.className).slice(0, 5)"""
# Where Tab is, and whether that can be seen: by an outline, or by the stroke of a ribbon.
HERE = """
const e = document.activeElement, ribbon = e.querySelector('path');
const seen = getComputedStyle(e).outlineStyle !== 'none' || (ribbon && getComputedStyle(ribbon).stroke !== 'none');
return [[...document.querySelectorAll('*')].indexOf(e), seen, e.tagName]"""
DEAD = """
return [...document.querySelectorAll('a[href^="#"]')].map(a => a.getAttribute('href').slice(1))
  .filter(id => id && !document.getElementById(id))"""


def browser(width_px: int, folder: str) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.add_experimental_option("mobileEmulation", {"deviceMetrics": {"width": width_px, "height": 900, "pixelRatio": 1}})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = "/usr/bin/chromium"
    return webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))


def faults(driver: webdriver.Chrome, page: Path) -> list[str]:
    driver.get(page.resolve().as_uri())
    found = [f"the browser says: {entry['message']}" for entry in driver.get_log("browser")]
    found += [f"broken picture: {source}" for source in driver.execute_script(BROKEN)]
    found += [f"wider than the window: {element}" for element in driver.execute_script(WIDE)]
    found += [f"a link to #{name}, which is not there" for name in driver.execute_script(DEAD)]
    for image in driver.find_elements(By.TAG_NAME, "img"):
        # Pictures further down are loaded when they come into sight: their files are looked for instead.
        name = image.get_dom_attribute("src")
        if not name.startswith("data:") and not (page.parent / name).is_file():
            found.append(f"a picture {name}, which is not there")
    for link in driver.find_elements(By.CSS_SELECTOR, "a[href]"):
        name = link.get_dom_attribute("href")
        if not name.startswith(("#", "data:")) and not (page.parent / name.split("#")[0]).exists():
            found.append(f"a link to {name}, which is not there")
    return found + by_keyboard(driver) + by_switch(driver)


def by_keyboard(driver: webdriver.Chrome) -> list[str]:
    found = []
    expected = driver.execute_script(FOCUSABLE)
    places, body = [], driver.find_element(By.TAG_NAME, "body")
    body.click() if expected == 0 else driver.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    for _ in range(expected):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        places.append(driver.execute_script(HERE))
    stops = [place for place, _, _ in places]
    if stops != sorted(set(stops)):
        found.append(f"Tab does not follow the page: {expected} stops expected, found the order {stops[:12]} …")
    # The focus of a radio button is drawn around its label.
    found += [f"no visible focus on {tag}" for _, seen, tag in places if not seen and tag != "INPUT"][:3]
    for summary in driver.find_elements(By.CSS_SELECTOR, "details:not([open]) > summary"):
        if summary.is_displayed():
            summary.send_keys(Keys.ENTER)
            if not driver.execute_script("return arguments[0].parentElement.open", summary):
                found.append(f"Enter does not open “{summary.text}”")
    return found


def by_switch(driver: webdriver.Chrome) -> list[str]:
    found = []
    shown = "return [...arguments[0].closest('fieldset').querySelectorAll('.state')].map(e => e.getClientRects().length > 0).indexOf(true)"
    states: dict[str, list[int]] = {}
    for radio in driver.find_elements(By.CSS_SELECTOR, "fieldset input[type=radio]"):
        driver.execute_script("arguments[0].click()", radio)
        states.setdefault(radio.get_dom_attribute("name"), []).append(driver.execute_script(shown, radio))
    for name, visible in states.items():
        if -1 not in visible and len(set(visible)) != len(visible):
            found.append(f"the states of “{name}” do not differ: {visible}")
    return found


def main() -> int:
    pages = []
    for word in sys.argv[1:]:
        path = Path(word)
        pages += sorted(path.glob("index*.html")) if path.is_dir() else [path]
    if not pages:
        print("usage: scripts/check_pages.py FOLDER|PAGE …; no page was found", file=sys.stderr)
        return 2
    worst = 0
    for width_px in WIDTHS_PX:
        with tempfile.TemporaryDirectory() as folder:
            driver = browser(width_px, folder)
            try:
                for page in pages:
                    found = faults(driver, page)
                    worst |= bool(found)
                    print(f"{page} at {width_px} px: {'all holds' if not found else f'{len(found)} faults'}")
                    for fault in found:
                        print(f"  {fault}")
            finally:
                driver.quit()
    return int(worst)


if __name__ == "__main__":
    sys.exit(main())
