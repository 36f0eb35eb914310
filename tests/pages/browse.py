"""The pages in Chromium: every page in every language and state, with and without JavaScript.

    browse.py AXE [NAME …]      runs the tests whose names contain one of NAME, or all
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

SPORLOG = os.environ["SPORLOG"]
AXE = Path(sys.argv[1]).read_text()
WANTED = sys.argv[2:]
SHOTS = Path(__file__).resolve().parents[2] / "docs" / "images"
CHROMIUM = "/usr/bin/chromium"
LANGUAGES = {"nb": "Mine opplysninger", "da": "Mine oplysninger", "en": "My records"}
WIDTHS = [320, 768, 1440]
# What a page may weigh with all that it needs: as it is, and gzipped.
MOST, MOST_GZIPPED = 100_000, 20_000

CONFIG = """
[pages]
giver = "NAV"
responsible = "Etaten for innsyn, Storgata 1, 0001 Oslo"
contact = "innsyn@etaten.example"
explanations = "explanations.toml"
[[pages.log]]
name = "disclosure*"
[[pages.log]]
name = "revision"
[[pages.embargo]]
log = "disclosure*"
topic = "KON"
days = 36500
[[pages.embargo]]
log = "disclosure*"
topic = "GRU"
fields = ["leverteData", "dataForespoersel"]
days = 36500
[pages.organisation."{organisation}"]
name = "Trygg Forsikring AS"
contact = "personvern@trygg.example"
"""
EXPLANATIONS = """
[[explanation]]
ground = "samtykke"
text.nb = "Du har samtykket, for eksempel da du søkte om lån eller meldte en skade."
text.da = "Du har givet samtykke, for eksempel da du søgte om et lån eller anmeldte en skade."
text.en = "You gave your consent, for example when you applied for a loan or reported a loss."
"""

PLACES = ["Nordlys", "Fjord", "Granli", "Skoglund", "Havnes", "Breidal", "Myrvang", "Oddestad"]
BUSINESSES = ["Forsikring AS", "Bank ASA", "kommune", "Liv AS", "Kreditt AS"]
TOPICS = {"AAP": "arbeidsavklaringspenger", "SYK": "sykepenger", "DAG": "dagpenger", "PEN": "pensjon", "UFO": "uføretrygd",
          "FOR": "foreldrepenger", "INK": "inntekt", "OPP": "oppfølging", "BAR": "barnetrygd", "OMS": "omsorgspenger",
          "ENF": "stønad til enslig mor eller far", "KON": "kontantstøtte", "GRU": "grunnstønad", "YRK": "yrkesskade",
          "TSO": "tilleggsstønad", "SUP": "supplerende stønad"}


class Site:
    """A server with sample data and two demo people, over a store of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.env = {**os.environ, "SPORLOG_STORE": str(folder / "store"), "SPORLOG_CONFIG": str(folder / "sporlog.toml")}
        disclosures = self.sporlog("sample", "disclosure", "--records", "4000", "--faulty", "0", configured=False)
        records = [json.loads(line) for line in disclosures.splitlines()]
        self.person, self.count = Counter(record["person"] for record in records).most_common(1)[0]
        theirs = [record for record in records if record["person"] == self.person]
        self.recipient, _ = Counter(record["mottaker"] for record in theirs).most_common(1)[0]
        revisions = self.sporlog("sample", "revision", "--records", "4000", "--faulty", "0", configured=False)
        citizens = re.findall(r'"([6-9]\d{9})"', revisions)
        self.citizen = Counter(citizens).most_common(1)[0][0]
        theirs = theirs[-1]
        hostile = {**theirs, "behandlingsGrunnlag": "<script>document.title='owned'</script>\u202elaiv",
                   "dataForespoersel": "W" * (1 << 20), "samtykkeToken": None, "tema": "<b>",
                   "uthentingsTidspunkt": "2001-01-01T12:00:00"}
        cut = {**theirs, "uthentingsTidspunkt": "2001-01-01T13:00:00", "leverteData": theirs["leverteData"][:-30]}
        lines = [disclosures.strip(), *map(json.dumps, (hostile, cut, {**theirs, "dataForespoersel": "once more"}))]
        (folder / "sporlog.toml").write_text(CONFIG.format(organisation=self.recipient))
        (folder / "explanations.toml").write_text(EXPLANATIONS)
        (folder / "people.toml").write_text(
            f'[[person]]\nname = "Kari Prøve"\npid = "{self.person}"\ncountry = "no"\n'
            f'[[person]]\nname = "Bo Prøve"\npid = "{self.citizen}"\ncountry = "dk"\n'
            '[[person]]\nname = "Tom Tomsen"\npid = "25922947409"\ncountry = "no"\n')
        for kind, text in (("disclosure", "\n".join(lines) + "\n"), ("revision", revisions)):
            self.sporlog("import", kind, "-", stdin=text)
        numbers = sorted({record["mottaker"] for record in records})
        names = (f"{place} {business}" for business in BUSINESSES for place in PLACES)
        for register, key, pairs in (("organisations", "orgnr", zip(numbers, names)), ("topics", "kode", TOPICS.items())):
            file = folder / f"{register}.csv"
            file.write_text(f"{key};navn\n" + "".join(f"{number};{name}\n" for number, name in pairs))
            self.sporlog("names", "import", register, str(file))
        self.count += 3
        self.start()

    def sporlog(self, *arguments: str, stdin: str | None = None, configured: bool = True) -> str:
        env = self.env if configured else os.environ
        done = subprocess.run([SPORLOG, *arguments], env=env, input=stdin, text=True, capture_output=True)
        assert done.returncode in (0, 1), done.stderr
        return done.stdout

    def start(self, **settings: str):
        said = self.folder / "said"
        with said.open("w") as out:
            command = [SPORLOG, "serve", "--listen", "127.0.0.1:0", "--demo-people", str(self.folder / "people.toml")]
            self.server = subprocess.Popen(command, env={**self.env, **settings}, stderr=out)
        for _ in range(200):
            if found := re.search(r"listening on (http://[^;]+)", said.read_text()):
                self.url = found[1].strip()
                return
            time.sleep(0.1)
        raise SystemExit("the server did not start: " + said.read_text())

    def stop(self):
        self.server.terminate()
        assert self.server.wait(30) == 0, (self.folder / "said").read_text()


class Browser:
    """Chromium, in contexts that have no memory of each other. Nothing may be asked of another server, nor go wrong
    in the console."""

    def __init__(self, playwright, site: Site):
        self.site = site
        self.chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

    @contextlib.contextmanager
    def page(self, person: str | None = "Kari", lang: str = "nb", **options):
        options = {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", **options}
        context = self.chromium.new_context(base_url=self.site.url, accept_downloads=True, **options)
        context.add_cookies([{"name": "lang", "value": lang, "url": self.site.url}])
        page = context.new_page()
        problems = []
        page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url)
                if not request.url.startswith((self.site.url, "blob:", "data:")) else None)
        if person:
            page.goto("/sign-in/demo")
            page.get_by_role("button", name=person).click()
            page.wait_for_url("**/my")
        problems.clear()
        yield page
        unexpected = [problem for problem in problems if "the server responded with a status of" not in problem]
        assert not unexpected, unexpected
        context.close()


def axe(page, what: str):
    """axe-core finds nothing. It runs in a world of its own, which the page's own policy does not bind."""
    session = page.context.new_cdp_session(page)
    tree = session.send("Page.getFrameTree")
    world = session.send("Page.createIsolatedWorld", {"frameId": tree["frameTree"]["frame"]["id"]})["executionContextId"]
    session.send("Runtime.evaluate", {"expression": AXE, "contextId": world})
    rules = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}"
    expression = f"axe.run(document, {rules}).then(r => JSON.stringify(r.violations.map(v => [v.id, v.nodes.map(n => n.html)])))"
    answer = session.send("Runtime.evaluate", {"expression": expression, "contextId": world, "awaitPromise": True})
    session.detach()
    violations = json.loads(answer["result"]["value"])
    assert not violations, f"{what}: {json.dumps(violations, indent=1)}"


def fits(page, what: str):
    """Nothing sticks out sideways."""
    sticking = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert sticking <= 0, f"{what}: {sticking} pixels stick out"


def records(page) -> int:
    return page.locator("main table a[href^='/my/']").count()


def heading(page) -> int:
    return int(re.sub(r"\D", "", page.locator("main h2").first.inner_text()))


def first_record(page, log: str = "disclosure") -> str:
    return page.locator(f"main table a[href^='/my/{log}/']").first.get_attribute("href")


def whole_record(page) -> str:
    """The address of a record of which nothing is withheld."""
    for link in page.locator("main table tr:not(:has(td[colspan])):not(:has(.withheld)) a").all():
        return link.get_attribute("href")
    raise AssertionError("no record is shown whole")


# The tests. Each gets the browser; their order is that of this file.


def test_front_page_and_signing_in_and_out(browser):
    with browser.page(None) as page:
        page.goto("/my")
        assert page.url == browser.site.url + "/", "a page without a session leads to the front page"
        page.get_by_role("main").get_by_role("link").first.click()
        page.get_by_role("button", name="Kari").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Mine opplysninger")
        assert page.locator(".demo").is_visible()
        page.get_by_role("button", name="Logg ut").click()
        page.goto("/my")
        assert page.url == browser.site.url + "/"


def test_every_page_in_every_language_and_state(browser):
    for lang, title in LANGUAGES.items():
        for scheme in ("light", "dark"):
            with browser.page(lang=lang, color_scheme=scheme) as page:
                expect(page.get_by_role("heading", level=1)).to_have_text(title)
                record = whole_record(page)
                for path in ("/", "/about", "/check", "/my", "/my?log=access", "/my?topic=nothing", "/my?from=x", record,
                             "/my?from=2000-01-01&topic=AAP", "/my/disclosure/4001", "/my/disclosure/999999"):
                    page.goto(path)
                    assert page.locator("html").get_attribute("lang") == lang
                    for details in page.locator("details").all()[:5]:
                        details.evaluate("element => element.open = true")
                    axe(page, f"{path} in {lang}, {scheme}")
    for person in ("Bo", "Tom"):
        with browser.page(person) as page:
            axe(page, f"/my of {person}")


def test_the_list_has_what_the_person_has(browser):
    with browser.page() as page:
        assert heading(page) == browser.site.count
        page.goto(f"/my?recipient={browser.site.recipient}")
        assert records(page) > 0
        names = page.locator("td[role=cell]:nth-child(2) div > bdi:first-child").all_inner_texts()
        assert set(names) == {"Trygg Forsikring AS"}, set(names)
        page.goto("/my?topic=AAP")
        assert records(page) > 0 and page.locator(".chips a").count() == 1
        page.locator(".chips a").click()
        assert heading(page) == browser.site.count and page.locator(".chips a").count() == 0
        page.get_by_text("Avgrens listen").click()
        page.get_by_label("Fra", exact=True).fill("2000-01-01")
        page.get_by_label("Til", exact=True).fill("2000-12-31")
        page.get_by_role("button", name="Vis", exact=True).click()
        assert records(page) == 0 and page.locator(".chips a").count() == 2
        page.goto("/my?log=revision")
        assert records(page) == 0
    with browser.page("Bo") as page:
        assert records(page) > 0 and "BrugerNavn" not in page.content()
        page.goto(first_record(page, "revision"))
        assert page.get_by_role("link", name="Last ned").count() == 0


def test_paging_while_records_come_in(browser):
    with browser.page() as page:
        seen, pages = [], 0
        newest = json.dumps({"person": browser.site.person, "mottaker": browser.site.recipient, "tema": "PEN",
                             "behandlingsGrunnlag": "ny", "uthentingsTidspunkt": "2026-11-01T10:00:00", "leverteData": "e30="})
        while True:
            seen += [link.get_attribute("href") for link in page.locator("main table a[href^='/my/']").all()]
            pages += 1
            more = page.get_by_role("link", name="Eldre oppføringer")
            if more.count() == 0:
                break
            browser.site.sporlog("import", "disclosure", "-", stdin=newest.replace("10:00:00", f"10:{pages:02}:00") + "\n")
            time.sleep(1.5)
            more.click()
        assert len(seen) == len(set(seen)) == browser.site.count, (len(seen), browser.site.count)
        browser.site.count += pages - 1
        page.get_by_role("link", name="Nyeste").click()
        assert heading(page) == browser.site.count


def test_a_record_and_its_proof(browser):
    with browser.page(lang="en") as page:
        page.goto(whole_record(page))
        assert page.locator(".lead").inner_text().startswith("NAV gave ")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the proof").click()
        proof = browser.site.folder / "proof.tlog-proof"
        download.value.save_as(proof)
        page.get_by_role("link", name="Check it yourself").click()
        # From here on there is no network.
        page.context.set_offline(True)

        def result(file: Path) -> str:
            # A name is used once: Chromium does not read a file anew that has changed since it was chosen.
            page.evaluate("document.querySelectorAll('[data-result]').forEach(shown => { shown.hidden = true; })")
            page.set_input_files("#file", file)
            shown = page.locator("[data-result]:visible")
            shown.wait_for()
            return shown.get_attribute("data-result")

        assert result(proof) == "good"
        expect(page.get_by_text("The proof holds.")).to_be_visible()
        assert browser.site.person in page.locator("#entry").inner_text()
        axe(page, "a proof that holds")
        text = proof.read_text()
        lines = text.splitlines(keepends=True)
        for nth in range(1, len(lines)):
            if len(lines[nth]) > 20:
                at = len(lines[nth]) // 2
                other = "A" if lines[nth][at] != "A" else "B"
                spoilt = browser.site.folder / f"spoilt-{nth}"
                spoilt.write_text("".join([*lines[:nth], lines[nth][:at] + other + lines[nth][at + 1:], *lines[nth + 1:]]))
                expected = "key" if lines[nth].startswith("sporlog.invalid/") else "bad"
                assert result(spoilt) == expected, f"line {nth + 1}: {lines[nth][:40]}"
        axe(page, "a proof that does not hold")
        none = browser.site.folder / "none"
        none.write_text("no proof at all")
        assert result(none) == "none"
        keys = page.locator("#keys code").all_inner_texts()
        other = next(key for key in keys if "/revision+" in key)
        page.set_input_files("#file", proof)
        for key in (other, "nonsense", keys[0][:-8] + "AAAAAAA="):
            page.get_by_label("The log's public key").fill(key)
            page.get_by_role("button", name="Check").click()
            expect(page.get_by_text("This is not the log's key.")).to_be_visible()
        page.get_by_label("The log's public key").fill(next(key for key in keys if "/disclosure+" in key))
        page.get_by_role("button", name="Check").click()
        expect(page.get_by_text("The proof holds.")).to_be_visible()
    key = browser.site.sporlog("key", "show", "disclosure", "--vkey").strip()
    assert "the proof holds" in subprocess.run([SPORLOG, "verify", "--proof", proof, "--key", key], text=True,
                                               capture_output=True).stderr + browser.site.sporlog("verify", "--proof", str(proof), "--key", key)


def test_exports(browser):
    with browser.page() as page:
        for name, count in (("CSV", lambda text: len(re.findall(r'^"disclosure",', text, re.M))), ("JSON", lambda text: len(json.loads(text)))):
            with page.expect_download() as download:
                page.get_by_role("link", name=name, exact=True).click()
            assert count(Path(download.value.path()).read_text()) == browser.site.count, name


def test_hostile_and_cut_records(browser):
    with browser.page(viewport={"width": 320, "height": 700}) as page:
        for path in ("/my", "/my/disclosure/4001", "/my/disclosure/4002"):
            page.goto(path)
            assert "owned" not in page.title()
            fits(page, path)
        assert page.get_by_text("avkortet av den som leverte det").first.is_visible()


def test_without_javascript(browser):
    with browser.page(java_script_enabled=False) as page:
        assert records(page) > 0
        page.locator("table summary").first.click()
        assert page.locator("table details[open] a").first.is_visible()
        page.get_by_text("Avgrens listen").click()
        page.get_by_label("Hva", exact=True).fill("AAP")
        page.get_by_role("button", name="Vis", exact=True).click()
        assert page.locator(".chips a").count() == 1
        page.goto(whole_record(page))
        with page.expect_download() as download:
            page.get_by_role("link", name="Last ned").click()
        assert Path(download.value.path()).read_text().startswith("c2sp.org/tlog-proof@v1")
        page.goto("/check")
        assert page.locator("noscript p").is_visible()
        page.get_by_role("button", name="Logg ut").click()
        page.goto("/my")
        assert page.url == browser.site.url + "/"


def test_widths_zoom_and_print(browser):
    for width in WIDTHS:
        with browser.page(viewport={"width": width, "height": 900}) as page:
            record = whole_record(page)
            for path in ("/", "/about", "/check", "/my", "/my?log=access", record):
                page.goto(path)
                fits(page, f"{path} at {width}")
                axe(page, f"{path} at {width}")
    # 200 % of 1280 pixels is a viewport of 640; and then text alone at twice its size.
    for width, scale, text in ((640, 2, "100%"), (1280, 1, "200%")):
        with browser.page(viewport={"width": width, "height": 450}, device_scale_factor=scale) as page:
            record = whole_record(page)
            for path in ("/my", record, "/check"):
                page.goto(path)
                page.evaluate(f"document.documentElement.style.fontSize = '{text}'")
                fits(page, f"{path} at 200 %")
    with browser.page() as page:
        page.emulate_media(media="print")
        assert not page.locator(".filter").is_visible() and page.locator("table").first.is_visible()
        assert len(page.pdf()) > 10_000


def test_keyboard_only(browser):
    with browser.page(None, lang="en") as page:
        page.goto("/")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_url("**/sign-in/demo")
        tab_to(page, "Kari")
        page.keyboard.press("Enter")
        page.wait_for_url("**/my")
        tab_to(page, "entries")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", "the focus is visible"
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("/my/disclosure/"))
        tab_to(page, "Sign out")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(r":\d+/$"))


def tab_to(page, text: str):
    """Presses Tab until what has the focus has this text."""
    for _ in range(200):
        page.keyboard.press("Tab")
        if text in (page.evaluate("document.activeElement.innerText") or ""):
            return
    raise AssertionError(f"'{text}' cannot be reached by keyboard")


def test_a_session_runs_out(browser):
    with browser.page(lang="en") as page:
        # The warning comes two minutes before the end: time is let go by in the page alone.
        page.clock.install()
        page.goto("/my")
        assert not page.locator("#idle").is_visible()
        page.clock.fast_forward(13.5 * 60 * 1000)
        expect(page.locator("#idle")).to_be_visible()
        axe(page, "the warning")
        page.get_by_role("link", name="Stay signed in").click()
        page.wait_for_load_state()
        assert not page.locator("#idle").is_visible()
        page.clock.fast_forward(15.5 * 60 * 1000)
        page.wait_for_url(re.compile(r":\d+/$"))


def test_pages_are_small(browser):
    import gzip
    with browser.page() as page:
        sizes = {}
        record = whole_record(page)
        for path in ("/", "/about", "/check", "/my", "/my?log=access", record, "/my/disclosure/4001"):
            bodies = []
            collect = lambda response: bodies.append(response)
            page.on("response", collect)
            page.goto(path, wait_until="networkidle")
            page.remove_listener("response", collect)
            # What the browser has kept is asked for again: a first visit needs it.
            urls = {response.url for response in bodies} | {browser.site.url + f"/assets/{name}" for name in
                                                             ("style.css", "session.js", "check.js", "icon.svg")}
            texts = [page.request.get(url).body() for url in urls]
            sizes[path] = (sum(map(len, texts)), sum(len(gzip.compress(text)) for text in texts))
        largest = max(size for size, _ in sizes.values()), max(packed for _, packed in sizes.values())
        print(f"        the largest page has {largest[0]} bytes, and {largest[1]} gzipped")
        assert largest[0] <= MOST and largest[1] <= MOST_GZIPPED, sizes


def test_screenshots(browser):
    shots = SHOTS if os.environ.get("SHOTS") else browser.site.folder
    shots.mkdir(exist_ok=True)
    with browser.page(lang="en", viewport={"width": 900, "height": 640}) as page:
        page.goto(f"/my?recipient={browser.site.recipient}")
        record = whole_record(page)
        page.goto("/my")
        page.screenshot(path=shots / "list.png")
        page.goto(record)
        page.screenshot(path=shots / "record.png")
        proof = browser.site.folder / "shown.tlog-proof"
        proof.write_bytes(page.request.get(record + "/proof").body())
        page.goto("/check")
        page.set_input_files("#file", proof)
        expect(page.get_by_text("The proof holds.")).to_be_visible()
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=shots / "check.png")


def main() -> int:
    failed = passed = 0
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        site = Site(Path(folder))
        browser = Browser(playwright, site)
        for name, test in list(globals().items()):
            if not name.startswith("test_") or WANTED and not any(wanted in name for wanted in WANTED):
                continue
            try:
                test(browser)
                passed += 1
                print(f"ok      {name[5:].replace('_', ' ')}")
            except Exception as error:  # noqa: BLE001: any failure is told, and the next test goes on
                failed += 1
                lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == __file__]
                print(f"FAILED  {name[5:].replace('_', ' ')}, line {lines[-1]}\n        {type(error).__name__}: {str(error)[:3000]}")
        browser.chromium.close()
        site.stop()
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
