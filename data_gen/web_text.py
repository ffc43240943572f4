"""What is done to the text of a web page before it is judged, and what its address tells: menus go, an unfinished end goes, data of
persons is masked. Nothing is rejected here (documents.py does that), and no HTML is read.

Each function done twice is the same as done once.
"""

import html
import ipaddress
import re
from collections.abc import Callable, Collection
from functools import lru_cache
from urllib.parse import urlsplit

import regex

from data_gen.documents import REPAIRABLE, DocumentRules, count_words
from data_gen.languages import Pack
from data_gen.text import fold_digits

LINE = 200  # letters; a longer line is a paragraph, whatever words are in it
MENU_LINES, MENU_LETTERS, MENU_WORDS = 4, 25, 4  # so many lines at least, each so short at most, above or below the text
UNFINISHED_LINES, UNFINISHED_LETTERS, UNFINISHED = 3, 100, 0.25  # an unfinished end has no more lines, nor letters or of the text
HEAD = 200  # letters of a text in which a dateline may stand

# What pages in every language have in English. A line must be made of such alone.
_WORDS = (
    r"home|main menu|menu|search|log ?in|log ?out|sign ?in|sign ?up|register|subscribe(?: now)?|share(?: this| on)?|tweet|facebook"
    r"|twitter|whats ?app|instagram|youtube|telegram|linkedin|pinterest|tiktok|reddit|rss|e-?mail|print|pdf|next|previous|prev"
    r"|back to top|read (?:more|also)|see also|related (?:posts?|articles?|news)|comments?|leave a (?:reply|comment)"
    r"|advertisements?|sponsored|skip to (?:main )?content|privacy(?: policy)?|terms (?:of (?:use|service)|(?:and|&) conditions)"
    r"|contact(?: us)?|about(?: us)?|accept(?: all)?|cookies?(?: policy| settings)?|all rights reserved|loading|tags?|categories"
    r"|click here|view all|x"
)
_PLATE = re.compile(
    rf"[\W\d]*(?:{_WORDS})(?:[\W\d]+(?:{_WORDS}))*[\W\d]*"
    r"|\W*(?:©|\(c\)(?=\W*(?:19|20)\d\d|.*\brights\b)|copyright\b).*|powered by .*|(?:we|this (?:web)?site) uses? cookies.*"
    r"|\W*(?:https?://|www\.)\S+\W*",
    re.IGNORECASE,
)
_NOTHING = re.compile(r"[\W_]+")
_CRUMB = r"\s*[^\s|›»•·:]{2}[^|›»•·:]{0,18}"  # not the sizes or the letters of a choice: "S | M | L"
_CRUMBS = re.compile(rf"{_CRUMB}(?:[|›»•·]{_CRUMB}){{3,}}[|›»•·]?|[^|›»•·]{{1,20}}(?:[›»][^|›»•·]{{1,20}}){{3,}}[›»]?")
_MANY_LINES = re.compile(r"\n{3,}")
# A sentence's end; a number and its unit, or a name and what it is: lists of ingredients.
_NO_MENU = re.compile(r"""[.!?…:،,;؛۔؟।॥|"'”»)\]]$|\d[ \u00a0]?[^\W\d]|\w: |\S - \S""")
_BLANKS = re.compile("  +")


def strip_boiler_plate(text: str, pack: Pack) -> str:
    """The text without lines that are none of it: menus, "share", "read more", notices of cookies and copyright, bare addresses.

    A line goes when it is the pack's boiler plate, or made of such words in English alone; and so do four and more very short lines
    running, above or below the text. Signs that were left as HTML writes them ("&nbsp;") are mended.
    """
    if "&" in text and (mended := REPAIRABLE.sub(_character, text)) != text:
        text = _BLANKS.sub(" ", mended)
    lines = [line for line in text.split("\n") if not _is_plate(line.strip(), pack)]
    first = _menu_end(lines, pack)
    last = len(lines) - _menu_end(lines[first:][::-1], pack)
    return _MANY_LINES.sub("\n\n", "\n".join(lines[first:last])).strip()


def _character(found: re.Match[str]) -> str:
    return html.unescape(f"&{found[1]};").replace("\u00a0", " ")


def _is_plate(line: str, pack: Pack) -> bool:
    if not line or len(line) > LINE:
        return False
    return bool(_PLATE.fullmatch(line) or _NOTHING.fullmatch(line) or _CRUMBS.fullmatch(line) or pack.web.boiler_plate.search(line))


def _menu_end(lines: list[str], pack: Pack) -> int:
    """How many of the first lines are a menu."""
    count = end = 0
    for place, line in enumerate(lines):
        line = line.strip()
        if len(line) > MENU_LETTERS or count_words(line, pack) > MENU_WORDS or _NO_MENU.search(line):
            break
        if line:
            count, end = count + 1, place + 1
    return end if count >= MENU_LINES else 0


def cut(text: str, pack: Pack, rules: DocumentRules) -> str:
    """A text longer than `rules.cut_at` up to the last end of a sentence within; where that takes more than half of the letters
    allowed (a poem), up to the last end of a line. "" where neither is there. Then (with `rules.whole_sentences`) without its
    unfinished end: what is left of a sentence, or up to 3 lines. More is no unfinished end: verses, a post without full stops.

    With cut_at=25: cut("بارش ہوئی۔ سب خوش تھے۔ پھر شام ہوئی۔") == "بارش ہوئی۔ سب خوش تھے۔". Where no blanks part words (Thai)
    they part sentences, and a text is cut at one of them if it is too long, but never for its last sentence.
    """
    limit = rules.cut_at
    if 0 < limit < len(text):
        if pack.pieces_a_word > 1:
            return text[: max(text.rfind(" ", 0, limit + 1), text.rfind("\n", 0, limit + 1), 0)].rstrip()
        end = _last_end(text, pack, limit)
        text = text[: end if 2 * end > limit else max(end, text.rfind("\n", 0, limit + 1))].rstrip()
    if not rules.whole_sentences or pack.pieces_a_word > 1:
        return text
    end = _last_end(text, pack, len(text))
    rest = text[end:].strip()
    short = rest.count("\n") < UNFINISHED_LINES and len(rest) <= max(UNFINISHED_LETTERS, UNFINISHED * len(text))
    return text[:end] if end and short else text


def _last_end(text: str, pack: Pack, limit: int) -> int:
    """Where in text[:limit] the last sentence ends; 0 where none does."""
    for found in _sentence_end(pack.sentence_ends).finditer(text, 0, min(limit + 20, len(text))):
        if found.end() <= limit:
            return found.end()
    return 0


@lru_cache
def _sentence_end(ends: str) -> regex.Pattern[str]:
    """Finds ends of sentences from the last on: one of the pack's signs or ? !, a "|" of the pack before a blank, its "-" at a
    line's end, or a full stop that is not of a number, an abbreviation or an ellipsis; with the quotation marks and brackets that
    close after it.
    """
    own = regex.escape("".join(end for end in ends if end not in ".?!|- ") + "۔؟।॥")
    closing = r"""[\p{Pe}\p{Pf}\p{Pi}"'*]*"""
    bar, hyphen = "|" * ("|" in ends), r"|(?<=[\p{L}\p{M}] ?)-(?=\s*(?:$|\n))" * ("-" in ends)
    return regex.compile(
        rf"(?:[{own}](?!\p{{N}})|[?!{bar}](?={closing}(?:\s|$)){hyphen}"
        rf"|(?<![.…]|(?:^|\n)\s*\p{{N}}{{1,3}}|^)\.(?!\.)(?={closing}\s*(?:$|\n))"
        rf"|(?<=[\p{{L}}\p{{M}}]{{3}}|(?<![\p{{L}}\p{{M}}])\p{{Ll}}{{2}}|\p{{N}}{{2}}|[\p{{Pe}}\p{{Pf}}\"'%])\.(?={closing}\s+[^\s\p{{Ll}}])"
        rf"){closing}",
        regex.REVERSE,
    )


# --- data of persons


_AT = ("@", "[at]", "(at)")
_MANY_DIGITS = re.compile(r"\d(?:(?:[ .()/+A-Z–-]{0,3}\d){5}|\d{3}[A-Z])")
_COLONS = re.compile(r":[0-9a-fA-F]{0,4}:[0-9a-fA-F]")
_DATE = r"(?!\d{1,2}([./-])\d{1,2}\1\d{2,4}(?!\d))"
_DIGITS = re.compile(r"\D+")
_DAY, _MONTH, _YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)\d\d"
_ONE_DATE = (
    rf"(?:{_YEAR}(?:[./-]{_MONTH}(?:[./-]{_DAY})?)?|{_DAY}[./]{_MONTH}|{_DAY}[./-]{_MONTH}[./-](?:{_YEAR}|\d\d)"
    rf"|{_MONTH}[./-]{_YEAR}|(?:[01]?\d|2[0-4])\.[0-5]\d)"
)
_DATES = re.compile(rf"{_ONE_DATE}(?:[ ,–-]{{1,3}}{_ONE_DATE})*")
_NO_BOOK = r"(?<!ISBN(?:-?1[03])?[-: ]{0,3})"
_PAIRS = re.compile(r"\d\d(?:\D+\d\d)+")
_TURNED = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)  # Verhoeff's permutation
_HETU = "0123456789ABCDEFHJKLMNPRSTUVWXY"


def mask_personal(text: str, pack: Pack) -> tuple[str, int]:
    """(text with fixed masks for addresses and numbers of persons, how many different ones there were).

    mask_personal("لکھیں: ali@mail.pk یا 0300-1234567", urdu) == ("لکھیں: [e-mail] یا [telephone]", 2). Helplines of the pack stay.
    """
    if not (any(at in text for at in _AT) or _MANY_DIGITS.search(text) or _COLONS.search(text)):
        return text, 0
    helplines = {_last_digits(number) for number in pack.helplines}
    different = set[str]()
    while spans := _personal(text, helplines, different):  # a mask may part what was one number
        for start, end, mask in sorted(spans, reverse=True):
            text = text[:start] + mask + text[end:]
    return text, len(different)


def _personal(text: str, helplines: Collection[str], different: set[str]) -> list[tuple[int, int, str]]:
    """What is to be masked, as (start, end, mask); adds to `different` what is the same in all ways to write each."""
    folded = fold_digits(text)  # a digit for a digit: places are the same
    spans = list[tuple[int, int, str]]()
    for mask, pattern, is_one in _PERSONAL:
        place = 0
        while found := pattern.search(folded, place):
            if not is_one(found[0]):
                place = found.start() + 1  # another may begin within
                continue
            place = found.end()
            if (key := _last_digits(found[0])) not in helplines:
                spans.append((*found.span(), mask))
                different.add(key or found[0].casefold())
                folded = folded[: found.start()] + "\0" * (place - found.start()) + folded[place:]  # is not looked at again
    return spans


def _last_digits(number: str) -> str:
    """What is the same with and without the country's code: "+92 311-7786264" → "117786264"; "" for what is no number."""
    return "" if "@" in number or "at" in number else _DIGITS.sub("", number)[-9:]


def _always(number: str) -> bool:
    return True


def _is_no_date(number: str) -> bool:
    """Not days, months, years and times alone, nor pairs of digits that rise: "07/2023-08/2024", "2021 2022", "06 12 18 24 30"."""
    pairs = _DIGITS.split(number)
    rising = _PAIRS.fullmatch(number) is not None and all(one < other for one, other in zip(pairs, pairs[1:], strict=False))
    return not rising and not _DATES.fullmatch(number)


def _is_aadhaar(number: str) -> bool:
    """India's identity number: Verhoeff's check, a product of a pentagon's turns and flips, is 0; and it is not three years."""
    check, digits = 0, [int(digit) for digit in reversed(_DIGITS.sub("", number))]
    for place, digit in enumerate(digits):
        for _ in range(place % 8):
            digit = _TURNED[digit]
        check = (check + (digit if check < 5 else -digit)) % 5 + 5 * ((check < 5) == (digit > 4))
    return check == 0 and _is_no_date(number)


def _is_card(number: str) -> bool:
    """Luhn's sum, which one wrong digit breaks."""
    if not _is_no_date(number):
        return False
    digits = [int(digit) for digit in reversed(_DIGITS.sub("", number))]
    return sum(digits[::2]) % 10 == -sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2]) % 10 and len(set(digits)) > 1


def _is_iban(number: str) -> bool:
    return sum(map(str.isdigit, number)) >= 10


def _is_hetu(number: str) -> bool:
    """Finland's personal identity code: its last sign is the rest of the number by 31."""
    return _HETU[int(number[:6] + number[7:10]) % 31] == number[10]


def _is_tc(number: str) -> bool:
    """Turkey's identity number: its last two digits are sums of the others."""
    digits = [int(digit) for digit in number]
    return (7 * sum(digits[0:9:2]) - sum(digits[1:8:2])) % 10 == digits[9] and sum(digits[:10]) % 10 == digits[10]


def _is_public_ip(number: str) -> bool:
    try:
        return ipaddress.ip_address(number).is_global
    except ValueError:
        return False


# In this order: what one has found the next does not see. Numbers of books begin with 978 or 979; round sums end in 0000.
_PERSONAL: tuple[tuple[str, regex.Pattern[str], Callable[[str], bool]], ...] = (
    ("[e-mail]", regex.compile(
        r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}(?:@|\s?[\[(]at[\])]\s?)(?!example\.(?:com|net|org)\b)"
        r"[A-Za-z0-9-]+(?:(?:\.|\s?[\[(]dot[\])]\s?)[A-Za-z0-9-]+)+"), _always),
    ("[IP address]", regex.compile(
        r"(?<![\w.])\d{2,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)|(?<![\w:])(?:[0-9A-Fa-f]{1,4}::?){3,7}[0-9A-Fa-f]{1,4}(?![\w:])"),
        _is_public_ip),
    ("[IBAN]", regex.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"), _is_iban),
    ("[identity card]", regex.compile(  # Pakistan, Thailand, India (PAN)
        r"(?<!\d)\d{5}[- ]\d{7}[- ]\d(?!\d)|(?<!\d)\d-\d{4}-\d{5}-\d{2}-\d(?!\d)"
        r"|\b[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]\b"), _always),
    ("[identity card]", regex.compile(r"(?<![\d.,+-])(?<!\d )[2-9]\d{3}([ -])\d{4}\1\d{4}(?![ -]?\d)"), _is_aadhaar),
    ("[identity card]", regex.compile(r"(?<![\w-])\d{6}[-+A-FU-Y]\d{3}[0-9A-Y](?![\w-])"), _is_hetu),
    ("[telephone]", regex.compile(  # 00 that ends an hour is no prefix
        r"(?<![\w+*/=])(?:\+|(?<![:.,])00 ?)(?=[1-9])(?:[ .()/–-]{0,2}\d){8,14}(?!\d)|(?<=wa\.me/|phone=)\d{8,15}"), _is_no_date),
    ("[card number]", regex.compile(r"(?<![\w.,/=-])[1-9]\d{3}(?:[ -]?\d){10,15}(?![\w]|-\d)"), _is_card),
    ("[telephone]", regex.compile(  # with the 0 of a long-distance call (also Turkey's, Thailand's); India's; America's
        rf"(?=[(\d])(?<![\w.,/=-])(?:{_NO_BOOK}{_DATE}\(?0[1-9](?:\)?(?: [–-] |[ .()/–-]{{0,2}})\d){{7,10}}(?!\d|[.,]\d)"
        r"|0 ?(?:\([2-5]\d\d\)|[2-5]\d\d) ?\d{3}[ -]?\d\d[ -]?\d\d(?!\d|[.,]\d)|0-[2-7]\d{3}[- ]\d{4}(?![\w-]|[.,]\d)"
        rf"|{_NO_BOOK}[6-9]\d{{4}}(?:[ -]\d{{5}}|(?!\d*0000\b)\d{{5}})(?![\w]|[.,-]\d)"
        r"|(?:\([2-9]\d{2}\) ?|[2-9]\d{2}-)\d{3}-\d{4}(?![\w-]))"), _is_no_date),
    ("[identity card]", regex.compile(r"(?<![\w.,/=-])[1-9]\d{10}(?![\w]|[.,-]\d)"), _is_tc),
    ("[identity card]", regex.compile(r"(?<![\w.,/=-])(?!97[89])(?!\d*0000\b)\d{12,17}(?![\w]|[.,-]\d)"), _always),
)  # fmt: skip


# --- addresses


# Where a country sells names below such a label ("co.uk", "sch.id"), a site has three labels.
_SECOND_LEVEL = frozenset(
    "ac av bel biz co com coop desa edu ernet fam firm gen go gob gok gop gos gov health in ind info int k12 me mi mil mobi museum "
    "my name ne net nic nom or org plc pol pro res sc sch tel tv web".split()
)
# Where everybody has a site of his own under a common name.
_HOSTS = frozenset(
    "blogspot.com wordpress.com weebly.com wixsite.com github.io gitlab.io netlify.app vercel.app web.app substack.com tumblr.com "
    "livejournal.com blogfa.com blogsky.com medium.com over-blog.com jimdofree.com altervista.org herokuapp.com pages.dev".split()
)
_NEWS = re.compile(r"(?:^|[./_-])(?:news|breaking-news)(?:[./_-]|$)")
_DAY_IN_PATH = re.compile(r"/(?:19|20)\d\d/(?:0?[1-9]|1[0-2])/(?:0?[1-9]|[12]\d|3[01])(?:/|$)")
_BLOG = re.compile(rf"^(?:https?:)?/*[^/]*(?:blog|{'|'.join(map(re.escape, sorted(_HOSTS)))})|/blogs?/")


def domain_of(url: str) -> str:
    """The part of a host that somebody registered: domain_of("https://www.khabar.com.pk:443/x") == "khabar.com.pk".

    A guess without the public list of suffixes: two labels, three under a country's "co", "edu" and their like, or under hosts of
    blogs. "" for what is no address.
    """
    try:
        host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
        host = host.rstrip(".").removeprefix("www.")
    except ValueError:
        return ""
    if not host or " " in host or _is_ip(host):
        return host if " " not in host else ""
    labels = host.split(".")
    many = len(labels[-1]) == 2 and len(labels) > 2 and labels[-2] in _SECOND_LEVEL
    blog = ".".join(labels[-2:]) in _HOSTS or (labels[-2:-1] == ["blogspot"]) or (many and labels[-3] == "blogspot")
    return ".".join(labels[-2 - many - blog :])


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_news(url: str, text: str, pack: Pack) -> bool:
    """By the address ("/news/", a day in the path of what is no blog) or by what the pack knows of addresses and datelines."""
    day = _DAY_IN_PATH.search(url) and not _BLOG.search(url)
    return bool(day or _NEWS.search(url) or pack.web.news.search(url) or pack.web.news.search(text[:HEAD]))
