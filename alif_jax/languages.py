"""English names of languages, as prompt templates write them ("Answer in Urdu."). Not a registry of all languages."""

# BCP-47, shortest form. The ten languages of X-Instruction, then those that stand beside them in multilingual data.
ENGLISH_NAMES = {
    "bn": "Bengali", "fi": "Finnish", "hi": "Hindi", "id": "Indonesian", "sw": "Swahili",
    "ta": "Tamil", "th": "Thai", "tr": "Turkish", "ur": "Urdu", "vi": "Vietnamese",
    "am": "Amharic", "ar": "Arabic", "as": "Assamese", "bg": "Bulgarian", "ca": "Catalan", "cs": "Czech", "da": "Danish",
    "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian",
    "fr": "French", "gu": "Gujarati", "ha": "Hausa", "he": "Hebrew", "hu": "Hungarian", "ig": "Igbo", "it": "Italian",
    "ja": "Japanese", "jv": "Javanese", "kn": "Kannada", "ko": "Korean", "ks": "Kashmiri", "lt": "Lithuanian", "lv": "Latvian",
    "ml": "Malayalam", "mr": "Marathi", "ms": "Malay", "my": "Burmese", "ne": "Nepali", "nl": "Dutch", "no": "Norwegian",
    "or": "Odia", "pa": "Punjabi", "pl": "Polish", "ps": "Pashto", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "sd": "Sindhi", "si": "Sinhala", "sk": "Slovak", "skr": "Saraiki", "so": "Somali", "sr": "Serbian", "sv": "Swedish",
    "te": "Telugu", "tl": "Tagalog", "uk": "Ukrainian", "uz": "Uzbek", "yo": "Yoruba", "zh": "Chinese", "zu": "Zulu",
    "ur-Latn": "Roman Urdu",
}  # fmt: skip


def english_name(code: str) -> str | None:
    """The English name of a BCP-47 code, None where it is not known. A script or region is left out unless it has its own name.

    "ur" → "Urdu", "ur-Latn" → "Roman Urdu", "pt-BR" → "Portuguese", "xx" → None
    """
    return ENGLISH_NAMES.get(code) or ENGLISH_NAMES.get(code.split("-")[0])
