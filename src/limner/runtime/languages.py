"""Is a prompt in a language that the text model knows? Scripts and small words only: a hint for a warning."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

# Articles, prepositions and the colours and things that prompts name; words that are also English are left out.
WORDS: dict[str, str] = {
    "German": "der das ein eine einen einem einer und mit auf im ist nicht für von zum zur ohne ohrring rote roter "
    "rotes blau blaue blauer grün grüne grüner gelbe gelber schwarz schwarze weiß weiße katze hund haus apfel baum",
    "French": "le la les un une des du et avec dans sur est pas pour rouge bleu bleue vert verte jaune noir noire "
    "blanc blanche chien maison pomme arbre avec sans petit petite",
    "Spanish": "el la los las un una unos unas y con en del sobre es para por sin rojo roja azul verde amarillo "
    "amarilla negro negra blanco blanca gato perro casa manzana árbol pequeño pequeña",
    "Italian": "il lo la gli un una uno e con nel della dello di per senza rosso rossa azzurro giallo gialla nero nera "
    "bianco bianca gatto cane mela albero piccolo piccola",
    "Portuguese": "o os um uma uns com em no na do da para por sem vermelho vermelha azul verde amarelo amarela preto "
    "preta branco branca gato cachorro casa maçã árvore pequeno pequena",
    "Dutch": "de het een en met van op voor zonder rode blauw blauwe groene gele zwart zwarte witte kat hond huis "
    "appel boom kleine",
    "Polish": "z w na i do nie jest czerwony czerwona czerwone niebieski niebieska zielony zielona żółty czarny czarna "
    "biały biała kot pies dom jabłko drzewo mały mała",
    "Turkish": "bir ve ile için kırmızı mavi yeşil sarı siyah beyaz kedi köpek ev elma ağaç küçük",
    "Swedish": "en ett och med på av för röd rött blå grön gul svart vit katt hund hus äpple träd liten",
    "Indonesian": "yang dan dengan di untuk merah biru hijau kuning hitam putih kucing anjing rumah apel pohon kecil",
    "Vietnamese": "một và với màu đỏ xanh vàng đen trắng mèo chó nhà táo cây nhỏ",
}
_ALSO_ENGLISH = """a an and at by can cane casa collar da de des di do dog dos du e el en es est het i im in is la las
le les lo los main men na no o on os per pies por pot sale sin so still un uno van vit w y z"""
_ENGLISH = """a an the of with and in on for to at by from is are this that it its without into over under like"""
ENGLISH = frozenset(_ENGLISH.split())
FOREIGN: dict[str, frozenset[str]] = {language: frozenset(words.split()) for language, words in WORDS.items()}
STRONG = {language: words - frozenset(_ALSO_ENGLISH.split()) for language, words in FOREIGN.items()}
_ANY_STRONG = frozenset().union(*STRONG.values())
WORD = re.compile(r"[^\W\d_]+")


def foreign(prompt: str, languages: tuple[str, ...]) -> str:
    """What speaks against the prompt being English, as the rest of a sentence that starts with "prompt"; else "".

    Judges only for models that know English alone; of others it says nothing. At least half of the letters in another
    script, or a word of another language with more such words than English ones, count.
    """
    if languages != ("en",):
        return ""
    script = _script(prompt)
    if script:
        return f"is written in {script} letters"
    words = WORD.findall(prompt.lower())
    if _ANY_STRONG.isdisjoint(words):
        return ""
    found = {
        language: sum(word in strong for word in words) * 2 + sum(word in FOREIGN[language] for word in words)
        for language, strong in STRONG.items()
        if any(word in strong for word in words)
    }
    language = max(found, key=lambda each: found[each])
    evidence = sum(word in FOREIGN[language] for word in words)
    return f"looks {language}" if evidence > sum(word in ENGLISH for word in words) else ""


def _script(prompt: str) -> str:
    """Name of the commonest script when at least half of the letters are not Latin, else ""."""
    if prompt.isascii():
        return ""
    scripts = Counter(unicodedata.name(letter, "UNKNOWN").split()[0] for letter in prompt if letter.isalpha())
    if not scripts or scripts["LATIN"] * 2 > scripts.total():
        return ""
    del scripts["LATIN"]
    return scripts.most_common(1)[0][0].title().replace("Cjk", "Chinese or Japanese")
