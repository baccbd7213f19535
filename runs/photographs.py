"""Cuts training pictures from freely licensed photographs in packages of Debian and npm.

    apt-get download budgie-backgrounds lomiri-wallpapers-16.04 wordpress-theme-twentytwentyone \
      wordpress-theme-twentytwentytwo wordpress-theme-twentytwentyfour wordpress-theme-twentytwentyfive
    for each in *.deb; do dpkg-deb -x "$each" PACKAGES; done
    npm pack tabler-ui@0.0.34 wallpapers@1.0.0 @d-oit/hinode-mod-image-lightbox-gallery@1.2.5 \
      @felds/progressive-picture@0.0.0 @findthebrink/responsive-images@0.1.1 @lowcodeunit/landing-pages-demo@1.14.150 \
      funny-dog-pictures@1.0.0 gatsby-portfolio-story@1.0.1 gatsby-starter-empress@0.1.0 \
      gatsby-starter-hero-blog@2.0.0 gatsby-starter-heydays@0.0.2 gatsby-starter-lamma@1.1.0 \
      gatsby-starter-uno@1.0.0-2 gatsby-theme-portfolio-minimal-james@1.0.2 himanshu-portfolio@0.0.0 \
      landing-page-3d@0.3.0 spa-portfolio@0.1.1
    for each in *.tgz; do mkdir PACKAGES/"$each"; tar -xzf "$each" -C PACKAGES/"$each"; done
    for each in endless-sky-data endless-sky-high-dpi; do
      apt-get download "$each" && dpkg-deb -x "$each"_*.deb PACKAGES/"$each"; done
    pip install python-debian pillow-jxl-plugin   # newer budgie-backgrounds are JPEG XL
    python runs/photographs.py PACKAGES OUT

What ships learned from the packages of Debian unstable, 2026-11-30 (budgie-backgrounds 4.2-1, lomiri-wallpapers
20.04.0-5, endless-sky-data 0.11.2-1, endless-sky-high-dpi 0.11.0-1, wordpress 7.1.4+dfsg1-1; twentytwentyone and
twentytwentytwo of bookworm's 6.1.9). Only pictures named below are read: those that the packages' own notices put under
CC0, CC-BY-4.0 or in the public domain, and of these the ones with something to learn from; and those that have the
names of Unsplash's downloads. Of the game Endless Sky it is the landscapes: its notice names the terms of each picture,
and those whose author asks for share-alike are left out. Every picture is reduced until compression no longer shows, to
two sizes, and cut into squares of 512 pixels; squares with next to nothing in them are left out.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from debian.copyright import Copyright
from graphics import SIDE, described_in
from PIL import Image

with contextlib.suppress(ImportError):
    import pillow_jxl  # noqa: F401  registers JPEG XL with Pillow

GAME, LARGER = "endless-sky-data", "endless-sky-high-dpi"
LANDSCAPES = "usr/share/games/endless-sky/plugins/endless-sky-high-dpi/images/land"
LONGEST, APART, LEAST_DETAIL = (1920, 1080), 1.3, 3.0
BACKGROUNDS = "usr/share/backgrounds"
THEMES = "usr/share/wordpress/wp-content/themes"
CC0, BY, UNSPLASH = "CC0-1.0", "CC-BY-4.0", "Unsplash licence / CC0 (Unsplash photo)"
# folder, names without their ending, licence, who is to be named
PHOTOGRAPHS = (
    (
        f"{BACKGROUNDS}/budgie",
        "abstract-spiral beacon-street-sunset blue-periwinkle canyon-wren casa-mila high-trestle-trail lake-sherburne "
        "oakland-zoo-otters ocean-waves perched-osprey perched-shrike piazza-gae-aulenti pondering-heron "
        "roman-colosseum singaporean-cityscape sunning-anhinga tea-gardens the-spices-of-life",
        CC0,
        "budgie-backgrounds, Budgie Desktop Developers",
    ),
    (
        BACKGROUNDS,
        "aitzgorri_by_Aitzol_Berasategi friends_by_Aitzol_Berasategi life_by_Aitzol_Berasategi "
        "picosdeeuropa_by_Aitzol_Berasategi sunset_by_Aitzol_Berasategi",
        BY,
        "lomiri-wallpapers, Aitzol Berasategi",
    ),
    (BACKGROUNDS, "Picture_0B_by_freespace Picture_1A_by_freespace", BY, "lomiri-wallpapers, Trevor Freespace"),
    (BACKGROUNDS, "Wine_by_Jakkub_Mede", BY, "lomiri-wallpapers, Jakub Mede"),
    (BACKGROUNDS, "seeding_by_Clements_Engelhardt", CC0, "lomiri-wallpapers, Clemens Engelhardt"),
    (
        f"{THEMES}/twentytwentyfour/assets/images",
        "abstract-geometric-art angular-roof art-gallery building-exterior green-staircase museum tourist-and-building "
        "windows",
        CC0,
        "wordpress-theme-twentytwentyfour, rawpixel",
    ),
    (
        f"{THEMES}/twentytwentyfive/assets/images",
        "botany-flowers coming-soon-bg-image coral-square grid-flower-2 location northern-buttercups-flowers "
        "poster-image-background red-hibiscus-closeup",
        CC0,
        "wordpress-theme-twentytwentyfive, rawpixel",
    ),
    (
        f"{THEMES}/twentytwentyone/assets/images",
        "Daffodils Reading in-the-bois-de-boulogne playing-in-the-sand roses-tremieres-hollyhocks-1884 "
        "self-portrait-1885 the-garden-at-bougival-1884 villa-with-orange-trees-nice young-woman-in-mauve",
        "public domain",
        "wordpress-theme-twentytwentyone, Berthe Morisot",
    ),
    (
        f"{THEMES}/twentytwentytwo/assets/images",
        "bird-on-salmon ducks flight-path-on-gray-c",
        CC0,
        "wordpress-theme-twentytwentytwo, rawpixel",
    ),
    (
        "package/dist/demo/photos",
        "adrian-infernus-281832-1500 ales-krivec-107499-1500 alex-bertha-316137-1500 anders-jilden-307322-1500 "
        "andrew-neel-141710-1500 aneta-ivanova-776-1500 anthony-intraversato-257182-1500 "
        "artem-sapegin-229391-1500 bobby-burch-145906-1500 casey-horner-339165-1500 christian-joudrey-96208-1500 "
        "christoph-bengtsson-lissalde-80291-1500 clarisse-meyer-122804-1500 cristina-gottardi-259243-1500 "
        "david-klaasen-54203-1500 david-marcu-114194-1500 davide-cantelli-139887-1500 dino-reichmuth-84359-1500 "
        "eberhard-grossgasteiger-311213-1500 geran-de-klerk-290418-1500 grant-ritchie-338179-1500 "
        "ilnur-kalimullin-218996-1500 jakob-owens-224352-1500 jeremy-bishop-330225-1500 jonatan-pie-226191-1500 "
        "josh-calabrese-66153-1500 joshua-earle-157231-1500 mahkeo-222765-1500 matt-barrett-339981-1500 "
        "nathan-anderson-297460-1500 nathan-anderson-316188-1500 nathan-dumlao-287713-1500 "
        "nicolas-picard-208276-1500 oskar-vertetics-53043-1500 priscilla-du-preez-181896-1500 "
        "ricardo-gomez-angel-262359-1500 sam-ferrara-136526-1500 sean-afnan-244576-1500 "
        "sophie-higginbottom-133982-1500 stefan-kunze-26932-1500 stefan-stefancik-105376-1500 "
        "sweet-ice-cream-photography-143023-1500 tatyana-dobreva-288463-1500 teddy-kelley-109202-1500 "
        "tim-bogdanov-97988-1500 tim-marshall-173957-1500 tom-barrett-318952-1500 vladimir-kudinov-12761-1500 "
        "web-agency-29200-1500 wil-stewart-18242-1500",
        UNSPLASH,
        "tabler-ui 0.0.34, photographers of Unsplash",
    ),
    (
        "package",
        "albert-s-XrvrRXJORPU-unsplash aston-yao-Ebz3RWJTJrE-unsplash franck-v-1JePildXM7g-unsplash "
        "hector-j-rivas-1FxMET2U5dU-unsplash karim-manjra-RxenDIopGN4-unsplash karim-manjra-gVa7zpwsxZo-unsplash "
        "karim-manjra-rYDiAOGTJkc-unsplash milad-b-fakurian-LYPZ29ve8mI-unsplash "
        "rui-matayoshi-IfC4e4sdEYc-unsplash wolfgang-hasselmann-rLMQd-ku5Hk-unsplash",
        UNSPLASH,
        "wallpapers 1.0.0, photographers of Unsplash",
    ),
)
# packages of npm, and the names of photographs of Unsplash that lie somewhere in them
PACKAGED = {
    "@d-oit/hinode-mod-image-lightbox-gallery 1.2.5": "bave-pictures-zs7sP2J7iB8-unsplash",
    "@felds/progressive-picture 0.0.0": "cameron-venti-Kc0ox1SRmV4-unsplash",
    "@findthebrink/responsive-images 0.1.1": (
        "ali-pazani-1646879-unsplash dmitry-zelinskiy-30959-unsplash mike-lorusso-1645001-unsplash"
    ),
    "@lowcodeunit/landing-pages-demo 1.14.150": "daniel-vogel-sVothhm7iRI-unsplash",
    "funny-dog-pictures 1.0.0": (
        "chewy-4aVJCl7Keg8-unsplash chewy-8S0cSJ1Dy9Q-unsplash chewy-gWzTum_yMCg-unsplash chewy-kZRX29xJq6Y-unsplash "
        "chewy-nbxffbJKPYc-unsplash valerie-elash-EcEpBIrar6Q-unsplash"
    ),
    "gatsby-portfolio-story 1.0.1": (
        "alvaro-reyes-qWwpHwip31M-unsplash balazs-ketyi-sScmok4Iq1o-unsplash "
        "boxed-water-is-better-7mr6Yx-8WLc-unsplash eftakher-alam-i1VQZsU86ok-unsplash "
        "georgie-cobbs-muOHbrFGEQY-unsplash luca-bravo-XJXWbfSo2f0-unsplash patrick-tomasso-KGcLJwIYiac-unsplash"
    ),
    "gatsby-starter-empress 0.1.0": "david-clode-13PjNBaDMcg-unsplash",
    "gatsby-starter-hero-blog 2.0.0": (
        "photo-1451324119451-db0ac857463c photo-1456518563096-0ff5ee08204e photo-1463852247062-1bbca38f7805 "
        "photo-1465070845512-2b2dbdc6df66 photo-1469461084727-4bfb496cf55a photo-1489824904134-891ab64532f1 "
        "photo-1489900464632-5f5907edda24 photo-1490474418585-ba9bad8fd0ea photo-1500531279542-fc8490c8ea4d "
        "photo-1507124484497-b7f446e65519 photo-1507915600431-5292809c5ab7"
    ),
    "gatsby-starter-heydays 0.0.2": "damian-ivanov-1634076-unsplash upal-patel-1634390-unsplash",
    "gatsby-starter-lamma 1.1.0": "samuel-wong-0tcBXUmSHYg-unsplash",
    "gatsby-starter-uno 1.0.0-2": (
        "aditya-ali-HGpfvykcI5U-unsplash alexander-schimmeck-ineC_oi7NHs-unsplash brian-nVu_pNoZYxg-unsplash "
        "caique-silva-Jn9uPCJX2Ks-unsplash christopher-lemercier-0adw8Y-3OGA-unsplash "
        "emile-mbunzama-kqSazaTGriE-unsplash felipe-bustillo-YXDTQ4e5wDo-unsplash houcine-ncib-6hUa_5hiDxw-unsplash "
        "mohammed-hassan-Vg1o2mipcJc-unsplash oswaldo-ibanez-lVmJ7cxIMFA-unsplash parker-whitson-CUADwVXAlkk-unsplash "
        "parker-whitson-HSFEeS-Jvxw-unsplash sunyu-kim-muvYcFC8UWA-unsplash"
    ),
    "gatsby-theme-portfolio-minimal-james 1.0.2": (
        "charles-deluvio-DgoyKNgPiFQ-unsplash clement-h-95YRwf6CNw8-unsplash kelly-sikkema-Hl3LUdyKRic-unsplash"
    ),
    "himanshu-portfolio 0.0.0": "mike-yukhtenko-wfh8dDlNFOk-unsplash",
    "spa-portfolio 0.1.1": "victoria-palacios-423143-unsplash",
    "landing-page-3d 0.3.0": "ludvig-wiese-d-MfHM-jHwc-unsplash mark-farias-dt60oksDTx8-unsplash",
}
# what the notices of the game call a licence, and what we call it
LANDSCAPE_TERMS = {"public-domain": "public domain", "CC0": CC0, "Unsplash": UNSPLASH}


class Photograph(NamedTuple):
    """Where it is, or what is in its file; what its squares are called after; who is to be named."""

    file: Path | bytes
    group: str
    license: str
    source: str

    def opened(self) -> Image.Image:
        return Image.open(io.BytesIO(self.file) if isinstance(self.file, bytes) else self.file).convert("RGB")


def photographs(packages: Path) -> Iterator[Photograph]:
    """Those of PHOTOGRAPHS and PACKAGED, and the landscapes that both notices allow, under what the game's own says."""
    for folder, stems, licence, credit in PHOTOGRAPHS:
        for stem in stems.split():
            yield Photograph(found(packages, folder, stem), stem, licence, credit)
    for package, stems in PACKAGED.items():
        for stem in stems.split():
            credit = f"{package}, photographers of Unsplash"
            yield Photograph(found(packages, "package/**", stem), stem, UNSPLASH, credit)
    notices = [notice(packages, name) for name in (GAME, LARGER)]
    for file in sorted((packages / LARGER / LANDSCAPES).glob("*@2x.*")):
        stem = file.name.partition("@")[0]
        terms = [stated.find_files_paragraph(f"images/land/{stem}.jpg").license.synopsis for stated in notices]
        # a name with a hyphen ends in its photographer's, who asks for share-alike
        if set(terms) <= set(LANDSCAPE_TERMS) and "-" not in stem:
            yield Photograph(file, stem, LANDSCAPE_TERMS[terms[0]], f"{LARGER} 0.11.0, as its notice names them")


def notice(packages: Path, name: str) -> Copyright:
    """The machine-readable notice of a package of Debian."""
    file = packages / name / "usr/share/doc" / name / "copyright"
    if not file.exists():
        raise SystemExit(f"{file} does not exist: unpack the packages there (see this file's head)")
    with file.open(encoding="utf-8") as lines:
        return Copyright(lines, strict=False)


def found(packages: Path, folder: str, stem: str) -> Path:
    """The picture of that name, in whatever format this version of the package has it."""
    files = [path for path in packages.glob(f"**/{folder}/{stem}.*") if path.suffix in {".jpg", ".jxl", ".webp"}]
    if not files:
        raise SystemExit(f"{packages} has no {folder}/{stem}.*: unpack the packages there (see this file's head)")
    return files[0]


def reduced(picture: Image.Image) -> list[Image.Image]:
    """The picture on at most LONGEST pixels, and on at most four fifths of what the file has; no size almost twice."""
    first, second = (max(max(picture.size) / longest, 1.25) for longest in LONGEST)
    factors = [first, second] if second > APART * first else [first]
    sizes = [(int(picture.width / factor), int(picture.height / factor)) for factor in factors]
    return [picture.resize(size, Image.Resampling.LANCZOS) for size in sizes]


def squares(picture: Image.Image) -> list[Image.Image]:
    """As many squares as fit beside each other, around the middle."""
    across, down = picture.width // SIDE, picture.height // SIDE
    left, top = (picture.width - across * SIDE) // 2, (picture.height - down * SIDE) // 2
    corners = [(left + x * SIDE, top + y * SIDE) for y in range(down) for x in range(across)]
    return [picture.crop((x, y, x + SIDE, y + SIDE)) for x, y in corners]


def detail(square: Image.Image) -> float:
    """Mean step from a pixel to its neighbour, of 255."""
    grey = np.asarray(square.convert("L"), np.float32)
    return float(np.abs(np.diff(grey)).mean() + np.abs(np.diff(grey, axis=0)).mean())


def cut(packages: Path, out: Path) -> list[dict[str, str]]:
    """Writes the squares; their metadata. One group is one photograph."""
    rows = []
    for photograph in photographs(packages):
        parts = (square for size in reduced(photograph.opened()) for square in squares(size))
        for number, square in enumerate(parts):
            if detail(square) >= LEAST_DETAIL:
                name = f"{photograph.group}_{number}.png"
                square.save(out / name)
                rows.append({"file_name": name} | about(photograph))
    return rows


def about(photograph: Photograph) -> dict[str, str]:
    """What a data folder says of each of its pictures."""
    return {key: getattr(photograph, key) for key in ("group", "license", "source")}


def main(packages: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = cut(packages, out)
    described_in(out, rows)
    print(f"{len(rows)} pictures of {len({row['group'] for row in rows})} photographs in {out}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
