"""The packs of the eleven languages as data for web text: that each leaves correct text alone, puts look-alikes in order, tells its
language from its neighbours, and finds menus, news and damage where there are some.

The sentences are this file's own. What makes damage here is Python's codecs, not the packs' expressions.
"""

import json
import re
import unicodedata
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
import regex

from data_gen.language_id import EACH, SHARED, common_word_counts
from data_gen.languages import Pack, load_pack, packs
from data_gen.text import script_share, tokens
from data_gen.text.shipped import text_records

# Correct prose in the packs' languages and in their neighbours', three sentences each: a sister goes to school.
TEXTS = {
    "urd_Arab": "میری بہن روز صبح اسکول جاتی ہے۔ وہاں بچے کتابیں پڑھتے ہیں اور کھیلتے بھی ہیں۔ شام کو ہم سب مل کر چائے پیتے ہیں، "
    "کیونکہ یہ ہمارے گھر کی پرانی عادت ہے۔",
    "snd_Arab": "منهنجي ڀيڻ روز صبح جو اسڪول ويندي آهي. هوءَ پنهنجي ساهيڙين سان گڏ پڙهندي آهي. شام جو اسين سڀ گڏجي چانهه پيئندا "
    "آهيون.",
    "pnb_Arab": "ایہہ کتاب میری اے تے میں اوہنوں روز پڑھدا ہاں۔ پنڈ وچ دو سکول نیں تے اوہناں دا رستہ ساڈے گھر دے نال اے۔",
    "pes_Arab": "خواهرم هر روز به مدرسه می‌رود. این مدرسه بزرگ است و بچه‌ها در آن کتاب را با شادی می‌خوانند. برای ما هم جای خوبی "
    "است.",
    "arb_Arab": "تذهب أختي إلى المدرسة كل صباح. هذه المدرسة التي في قريتنا قديمة، والأطفال يحبون أن يقرؤوا فيها.",
    "pbt_Arab": "زما خور هره ورځ ښوونځي ته ځي. هلته ماشومان کتابونه لولي، ځکه چې د کلي ښوونځی نږدې دی. دغه ښوونځی ډېر ښه دی.",
    "hin_Deva": "मेरी बहन रोज़ सुबह स्कूल जाती है। वहाँ बच्चे किताबें पढ़ते हैं और खेलते भी हैं। शाम को हम सब मिलकर चाय पीते "
    "हैं।",
    "mar_Deva": "माझी बहीण रोज सकाळी शाळेत जाते. तिथे मुले पुस्तके वाचतात आणि खेळतात. ही शाळा जुनी आहे आणि मोठी आहे.",
    "npi_Deva": "मेरी बहिनी हरेक दिन बिहान विद्यालय जान्छे। त्यहाँ केटाकेटी किताब पढ्छन् र खेल्छन् पनि। यो विद्यालय पुरानो छ र "
    "ठूलो छ।",
    "bho_Deva": "हमार बहिन रोज भोरे इस्कूल जाले। ई इस्कूल गाँव के बीच में बा। ई भवन पहिले बनावल गइल रहल।",
    "mai_Deva": "हमर बहिन सभ दिन भोरे स्कूल जाइत छथि। एहि गाममे एकटा पुरान पोखरि अछि। हुनकर घर पोखरिक कातमे अछि।",
    "san_Deva": "तत्र एकः विद्यालयः अस्ति। बालकाः अपि तत्र पठन्ति। तस्य नाम रामः इति।",
    "ben_Beng": "আমার বোন রোজ সকালে স্কুলে যায়। সেখানে শিশুরা বই পড়ে এবং খেলাধুলা করে। বিকেলে আমরা সবাই একসঙ্গে চা খাই।",
    "asm_Beng": "মোৰ ভনী প্ৰতিদিনে ৰাতিপুৱা বিদ্যালয়লৈ যায়। তাত ল'ৰা-ছোৱালীয়ে কিতাপ পঢ়ে আৰু খেলা কৰে। ঘৰৰ পৰা বিদ্যালয় দূৰ "
    "নহয়।",
    "tam_Taml": "என் தங்கை தினமும் காலையில் பள்ளிக்குச் செல்கிறாள். அங்கே அவள் ஒரு மணி நேரம் விளையாடுவாள். மாலையில் அந்த "
    "வீட்டில் நாங்கள் அனைவரும் சேர்ந்து தேநீர் குடிப்போம்.",
    "tha_Thai": "น้องสาวของฉันไปโรงเรียนทุกเช้า ที่นั่นเด็ก ๆ อ่านหนังสือและเล่นกับเพื่อน ตอนเย็นทุกคนในบ้านดื่มน้ำชาด้วยกัน",
    "swh_Latn": "Dada yangu huenda shuleni kila asubuhi. Huko watoto husoma vitabu na kucheza pia. Jioni sisi sote hunywa chai "
    "pamoja katika nyumba yetu, kwa sababu hii ni desturi yetu ya zamani.",
    "kin_Latn": "Mushiki wanjye ajya ku ishuri buri gitondo. Abana basoma ibitabo kandi barakina. Igihe cyo kuruhuka ni gito "
    "cyane, ariko barishima.",
    "lug_Latn": "Mwannyinaze agenda ku ssomero buli nkya. Abaana basoma ebitabo era bazannya. Naye olwa enkuba, tebagenda wala "
    "okuva ku ssomero.",
    "lin_Latn": "Ndeko na ngai ya mwasi akendaka eteyelo ntongo nyonso. Bato ebele bazali kuna. Eteyelo ezali mosika te.",
    "nya_Latn": "Mlongo wanga amapita kusukulu tsiku lililonse. Ana amawerenga mabuku ndi kusewera. Koma pamene mvula igwa, "
    "anthu amakhala m'nyumba chifukwa kunja kumazizira.",
    "sna_Latn": "Hanzvadzi yangu inoenda kuchikoro mazuva ose. Vanhu vanoverenga mabhuku uye vanotamba. Asi kana kuchinaya "
    "havabudi, nokuti kunotonhora.",
    "tur_Latn": "Kız kardeşim her sabah okula gidiyor. Orada çocuklar kitap okuyor ve oyun oynuyor. Akşam hep birlikte çay "
    "içiyoruz, çünkü bu bizim için eski bir alışkanlık.",
    "azj_Latn": "Bacım hər səhər məktəbə gedir. Orada uşaqlar kitab oxuyur və oynayırlar. Axşam hamımız birlikdə çay içirik, "
    "çünki bu bizim üçün köhnə adətdir.",
    "tuk_Latn": "Uýam her gün irden mekdebe gidýär. Ol ýerde çagalar kitap okaýar we oýnaýar. Mekdep biziň öýümize ýakyn däl, "
    "şonuň üçin biz awtobus bilen gidýäris.",
    "uzn_Latn": "Singlim har kuni ertalab maktabga boradi. U yerda bolalar kitob oʻqiydi va oʻynaydi. Maktab uzoq emas, shuning "
    "uchun u doʻstlari bilan piyoda boradi.",
    "kmr_Latn": "Xwişka min her sibe diçe dibistanê. Dibistan ji mala me dûr e û zarok gelek ji wê hez dikin. Ew êvarê lê "
    "dilîzin û pirtûkên xwe dixwînin.",
    "mww_Latn": "Cov me nyuam mus kawm ntawv txhua hnub. Lawv nyob ib lub zos me thiab tsis deb ntawm peb lub tsev.",
    "vie_Latn": "Em gái tôi đi học mỗi sáng. Ở đó các em nhỏ đọc sách và chơi đùa với bạn bè. Buổi tối cả nhà cùng uống trà, vì "
    "đó là thói quen đã có từ lâu của chúng tôi.",
    "ind_Latn": "Adik saya pergi ke sekolah setiap pagi karena dia suka belajar. Di sana anak-anak membaca buku dan bisa "
    "bermain. Hari Senin dan Jumat mereka belajar musik, yaitu lagu-lagu lama.",
    "zsm_Latn": "Adik saya pergi ke sekolah setiap pagi kerana dia suka belajar. Di sana kanak-kanak membaca buku dan bermain. "
    "Pada hari Isnin dan Jumaat mereka belajar muzik, iaitu lagu-lagu lama.",
    "jav_Latn": "Adhiku saben esuk mangkat sekolah. Ing kana bocah-bocah padha maca buku lan dolanan. Sekolahe ora adoh saka "
    "omah.",
    "sun_Latn": "Adi kuring unggal isuk indit ka sakola. Di ditu barudak maca buku jeung ulin. Sakola téh aya dina jalan anu "
    "ramé.",
    "fin_Latn": "Siskoni menee joka aamu kouluun. Siellä lapset lukevat kirjoja, mutta myös leikkivät. Illalla juomme kaikki "
    "yhdessä teetä, sillä tämä on vanha tapamme.",
    "olo_Latn": "Minun sizär käyy školah joga huondestu. Sie ollah lapset, kudamat luvetah kniigua. Nygöi häi on kois.",
    "sme_Latn": "Mu oabbá manná skuvlii juohke iđida. Doppe leat olbmot, muhto skuvla ii leat stuoris. Dál buot mánát lohket.",
    "ekk_Latn": "Mu õde läheb igal hommikul kooli. Seal loevad lapsed raamatuid ning mängivad. Õhtul joome kõik koos teed, aga "
    "see on vana komme, mis meile meeldib.",
}  # fmt: skip

# Lines of pages that are no text of them.
PLATES = {
    "ur": ["ہوم | پاکستان | دنیا | کھیل | ہم سے رابطہ", "مزید پڑھیں", "اس خبر کو اپنے دوستوں کے ساتھ شیئر کریں۔",
        "جملہ حقوق محفوظ ہیں © 2023", "ہماری ویب سائٹ کوکیز کا استعمال کرتی ہے۔ قبول کریں", "تبصرے (۳)",
        "اشاعت: 12 مارچ 2024"],
    "sd": ["پهريون صفحو | سنڌ | رانديون | رابطو", "وڌيڪ پڙهو", "سڀ حق واسطا محفوظ آهن"],
    "hi": ["होम | देश | दुनिया | खेल", "और पढ़ें", "ताज़ा ख़बरें", "ताजा खबरें", "इस लेख को दोस्तों के साथ साझा करें।",
        "यह वेबसाइट कुकीज़ का उपयोग करती है।", "सर्वाधिकार सुरक्षित © 2023", "टिप्पणियाँ (3)"],
    "bn": ["হোম | জাতীয় | খেলা | বিনোদন", "আরও পড়ুন", "এই খবরটি বন্ধুদের সঙ্গে শেয়ার করুন",
        "সর্বস্বত্ব স্বত্বাধিকারী কর্তৃক সংরক্ষিত", "আমরা এই সাইটে কুকি ব্যবহার করি।"],
    "ta": ["முகப்பு | தமிழகம் | இந்தியா | விளையாட்டு", "மேலும் படிக்க", "இந்தச் செய்தியைப் பகிரவும்",
        "அனைத்து உரிமைகளும் பாதுகாக்கப்பட்டவை", "இந்த இணையதளம் குக்கீகளைப் பயன்படுத்துகிறது."],
    "th": ["หน้าแรก | การเมือง | กีฬา | บันเทิง", "อ่านเพิ่มเติม",
        "เว็บไซต์นี้ใช้คุกกี้เพื่อเพิ่มประสิทธิภาพในการใช้งาน", "สงวนลิขสิทธิ์ พ.ศ. 2566",
        "ติดตามข่าวสารได้ที่เฟซบุ๊กของเรา"],
    "sw": ["Mwanzo | Siasa | Michezo | Burudani", "Soma zaidi", "Haki zote zimehifadhiwa.",
        "Tovuti hii inatumia vidakuzi.", "Shiriki makala hii"],
    "tr": ["Ana Sayfa | Gündem | Ekonomi | Spor", "Devamını oku", "HAKKIMIZDA | İLETİŞİM", "Tüm hakları saklıdır.",
        "Sitemizde çerezler kullanılmaktadır.", "Bu haberi arkadaşlarınla paylaş",
        "Yayınlanma tarihi: 12 Mart 2024 10.30"],
    "vi": ["Trang chủ | Thời sự | Thế giới | Thể thao", "Xem thêm", "Chia sẻ bài viết này",
        "Trang web này sử dụng cookie.", "Bản quyền © 2023", "Bình luận (5)"],
    "id": ["Beranda | Nasional | Ekonomi | Olahraga", "Baca juga: Cara memasak nasi", "Bagikan artikel ini",
        "Situs ini menggunakan cookie.", "Hak cipta dilindungi undang-undang", "Editor: Budi"],
    "fi": ["Etusivu | Kotimaa | Ulkomaat | Urheilu", "Lue lisää", "Kaikki oikeudet pidätetään.",
        "Käytämme sivustolla evästeitä.", "Jaa tämä artikkeli", "Julkaistu 12.3.2024 klo 10"],
}  # fmt: skip
# Lines that are text, though they have the same words.
PROSE = {
    "ur": ["تلاش کے بعد کتاب مل گئی۔", "کھیل", "شیر", "کوکیز چھوٹی فائلیں ہیں جو براؤزر محفوظ کرتا ہے۔",
        "کاپی رائٹ کا قانون مصنف کا حق مانتا ہے۔", "پاکستان اور دنیا"],
    "sd": ["راند کان پوءِ ٻار گهر ويا.", "سنڌ"],
    "hi": ["खेल", "घर की खोज में वह शहर आया।", "विज्ञापन देखकर उसने नौकरी ढूँढी।", "हमारे बारे में लोग अच्छा सोचते हैं।"],
    "bn": ["খেলা", "বিজ্ঞাপন দেখে তিনি চাকরি খুঁজলেন।", "মন্তব্য করার আগে ভাবুন।"],
    "ta": ["கல்வி", "காப்புரிமை என்பது எழுத்தாளரின் உரிமை.", "விளம்பரம் பார்த்து அவர் வேலை தேடினார்."],
    "th": ["กีฬา", "คุกกี้เป็นขนมที่เด็ก ๆ ชอบ", "โฆษณาช่วยให้คนรู้จักสินค้า"],
    "sw": ["Michezo", "Maoni yake yalikuwa mazuri.", "Tangazo hilo lilionekana jana."],
    "tr": ["Spor", "Reklam izlemek bazen eğlencelidir.", "Çerezleri kuruyemişçiden aldık.", "Aralık ayı geldi."],
    "vi": ["Thể thao", "Quảng cáo giúp người mua biết sản phẩm.", "Chia sẻ là niềm vui."],
    "id": ["Olahraga", "Iklan membantu pembeli mengenal barang.", "Masuk ke rumah, lalu cuci tangan.",
        "Hak cipta dilindungi oleh hukum sejak lama."],
    "fi": ["Urheilu", "Haku kesti kaksi tuntia.", "Tekijänoikeus suojaa kirjailijaa."],
}  # fmt: skip
LONG = " 0123456789" * 8  # a dateline stands before a paragraph
NEWS = {
    "ur": ["اسلام آباد (نمائندہ خصوصی) وزیر اعظم نے اجلاس بلایا۔", "لاہور: شہر میں" + LONG,
        "سوات (بیورو رپورٹ) سیاح آنے لگے۔", "https://urdu.example/pakistan/khabrain/12", "https://news.example/a"],
    "sd": ["ڪراچي (رپورٽر) شهر ۾ مينهن پيو.", "https://sindhi.example/khabroon/5"],
    "hi": ["नई दिल्ली, 5 मार्च (भाषा) प्रधानमंत्री ने कहा।", "मुंबई: शहर में" + LONG, "https://hindi.example/samachar/5"],
    "bn": ["ঢাকা, ৫ মার্চ (বাসস) প্রধানমন্ত্রী বলেছেন।", "নিজস্ব প্রতিবেদক, ঢাকা", "খুলনা, ১০ মার্চ। শহরে" + LONG, "https://bangla.example/news/5"],
    "ta": ["சென்னை, மார்ச் 5 (பிடிஐ) அமைச்சர் கூறினார்.", "மதுரை: நகரில்" + LONG, "https://tamil.example/seithigal/5"],
    "th": ["ผู้สื่อข่าวรายงานว่าฝนตกหนัก", "วันนี้ (5 มี.ค. 67) ฝนตกหนัก", "https://thai.example/ข่าว/5"],
    "sw": ["Na Mwandishi Wetu", "Dodoma. Serikali imesema" + LONG, "https://swahili.example/kitaifa/5"],
    "tr": ["ANKARA (AA) Bakan açıklama yaptı.", "İstanbul - Kentte" + LONG, "BURSA. Kentte" + LONG, "https://turkce.example/haber/5"],
    "vi": ["Hà Nội (TTXVN) Thủ tướng phát biểu.", "VOV.VN - Sáng nay", "Đà Nẵng. Sáng nay" + LONG, "https://viet.example/tin-tuc/5"],
    "id": ["JAKARTA, Media.com - Menteri" + LONG, "Bandung (ANTARA) - Hujan" + LONG, "Medan. Siswa" + LONG, "https://indo.example/berita/5"],
    "fi": ["Helsinki. (STT) Hallitus kokoontui.", "STT–AFP", "TAMPERE. Koululaiset" + LONG, "https://suomi.example/kotimaa/5"],
}  # fmt: skip
NO_NEWS = {
    "ur": ["لاہور ایک بڑا شہر ہے۔", "لاہور: تاریخ", "لاہور (انگریزی: Lahore) پنجاب کا دارالحکومت ہے۔", "https://urdu.example/recipes/newsletter-design",
        "https://blog.example/renewed"],
    "hi": ["मुंबई एक बड़ा शहर है।", "मुंबई: इतिहास", "दिल्ली-मुंबई राजमार्ग देश की सबसे लंबी सड़कों में से एक है और उस पर रोज़ हज़ारों गाड़ियाँ चलती हैं।"],
    "id": ["Jakarta - sejarah", "Bandung adalah kota besar."],
    "tr": ["Ankara başkenttir."],
    "sw": ["Dodoma ni mji mkuu."],
    "fi": ["Helsinki on pääkaupunki."],
    "th": ["กรุงเทพฯ เป็นเมืองหลวง"],
    "vi": ["Hà Nội là thủ đô."],
}  # fmt: skip
# By wrong decoding; and letters in the order of an old font.
DAMAGE = {
    "ur": ["اردو زبان".encode("cp1256").decode("cp1252")],
    "sd": ["سلام".encode("cp1256").decode("cp1252")],
    "hi": ["Hkkjr esa gS", "किताब्ा", "कंं"],
    "bn": ["Avgvi †mvbvi", "বাং্লা" + "ক্ি"],
    "ta": ["jkpo;ehL; ehd;fs;"],
    "th": ["ภาษาไทย".encode().decode("cp874", "replace"), "ภาษาไทย".encode("cp874").decode("latin-1")],
    "sw": ["привет".encode("cp1251").decode("latin-1")],
    "tr": ["şiir ağaç ılık".encode("cp1254").decode("cp1252")],
    "vi": ["Tiếng Việt".encode().decode("cp1252", "replace"), "kh«ng cña", "khoâng cuûa"],
    "id": ["привет".encode("cp1251").decode("latin-1")],
    "fi": ["pöytä".encode("cp437").decode("cp1252"), "p{iv{", "pa¨iva¨"],
}  # fmt: skip
# Typed → what it is.
ALIKE = {
    "ur": {"كتاب": "کتاب", "يہ": "یہ"},
    "hi": {"अाम": "आम", "किताबाें": "किताबों", "अाैर": "और", "काॅलेज": "कॉलेज"},
    "bn": {"আমি৷": "আমি।", "অামি": "আমি", "হঠাত্\u200d": "হঠাৎ", "আমাব়": "আমার", "\u09dfা": "\u09af\u09bcা"},
    "ta": {"ஶ்ரீ": "ஸ்ரீ", "க\u0bc6\u0bbe": "க\u0bca"},
    "th": {"เเม่": "แม่", "นํ้า": "น้ำ", "น้ํา": "น้ำ", "นำ้": "น้ำ", "ทํา": "ทำ"},
    "sw": {"ngʼombe": "ng'ombe"},
    "tr": {"șehir": "şehir", "Ankaraʼda": "Ankara’da", "İ".lower() + "stanbul": "istanbul"},
    "vi": {"Ðà Nẵng": "Đà Nẵng", unicodedata.normalize("NFD", "Việt Nam"): "Việt Nam"},
    "id": {"Jumʼat": "Jum'at", "deﬁnisi": "definisi"},
    "fi": {"graaﬁnen": "graafinen", unicodedata.normalize("NFD", "hyvää"): "hyvää"},
}  # fmt: skip
ALL = sorted(PLATES)
SAMPLE = Path(__file__).parent.parent / "data_gen" / "text" / "web"


@pytest.fixture(params=ALL)
def pack(request: pytest.FixtureRequest) -> Pack:
    return load_pack(request.param)


def prose(pack: Pack) -> list[str]:
    return [*re.split(r"(?<=[.۔।]) ", TEXTS[pack.glotlid]), *PROSE[pack.code]]


def test_there_is_a_pack_for_each() -> None:
    assert packs() == ALL
    labels = [load_pack(code).glotlid for code in ALL]
    assert len(set(labels)) == len(labels) and all(re.fullmatch("[a-z]{3}_[A-Z][a-z]{3}", label) for label in labels)


def test_correct_text_stays_as_it_is(pack: Pack) -> None:
    text = TEXTS[pack.glotlid]
    assert pack.normalise(text) == unicodedata.normalize("NFC", text)
    assert script_share(text, pack.script) == 1
    assert not set(text) & set(pack.foreign_letters)
    assert any(end in text for end in pack.sentence_ends)


def test_look_alikes_become_the_languages_letters(pack: Pack) -> None:
    for typed, right in ALIKE.get(pack.code, {}).items():
        assert pack.normalise(typed) == unicodedata.normalize("NFC", right), typed
        assert pack.normalise(right) == unicodedata.normalize("NFC", right)


def test_twice_is_the_same_as_once(pack: Pack) -> None:
    typed = [*ALIKE.get(pack.code, {}), *TEXTS[pack.glotlid].split()[:8]]
    for text in map("".join, product(typed, typed)):
        once = pack.normalise(text)
        assert pack.normalise(once) == once


def test_foreign_letters_are_of_the_script_and_of_no_word(pack: Pack) -> None:
    assert all(script_share(letter, pack.script) == 1 for letter in pack.foreign_letters)
    own = "".join(pack.common_words.get(pack.glotlid, ()))
    assert not set(own) & set(pack.foreign_letters)
    assert pack.normalise(pack.foreign_letters) == pack.foreign_letters  # or the normaliser would hide them


def test_common_words_are_single_words_and_in_one_list_only(pack: Pack) -> None:
    lists = {label: [tokens(word) for word in words] for label, words in pack.common_words.items()}
    if pack.pieces_a_word == 1:
        assert all(len(word) == 1 for words in lists.values() for word in words)
    spelt = Counter(tuple(word) for words in lists.values() for word in words)  # as they are compared: ك is ک there
    assert [word for word, count in spelt.items() if count > 1] == []
    assert pack.glotlid in lists and all(len(words) >= 6 for words in lists.values())
    assert all(words == [unicodedata.normalize("NFC", word) for word in words] for words in map(list, pack.common_words.values()))


def test_common_words_tell_the_neighbours_apart(pack: Pack) -> None:
    for label in set(pack.common_words) - {SHARED}:
        found = tokens(pack.normalise(TEXTS[label]))
        counts = {other: sum(tokens(word)[0] in found for word in words) for other, words in pack.common_words.items()}
        counts.pop(SHARED, None)
        if pack.pieces_a_word > 1:
            counts = {other: sum(word in TEXTS[label] for word in words) for other, words in pack.common_words.items()}
        mine = counts.pop(label)
        assert mine >= 2 and not any(counts.values()), (label, mine, counts)


def test_lingua_knows_the_codes(pack: Pack) -> None:
    from lingua import IsoCode639_1

    assert all(hasattr(IsoCode639_1, code.upper()) for code in (pack.lingua, *pack.neighbours) if code)


def test_lines_that_are_no_text_are_found(pack: Pack) -> None:
    for line in PLATES[pack.code]:
        assert pack.web.boiler_plate.search(pack.normalise(line)), line
    for line in prose(pack):
        assert not pack.web.boiler_plate.search(pack.normalise(line)), line


def test_news_are_found(pack: Pack) -> None:
    for opening in NEWS[pack.code]:
        assert pack.web.news.search(pack.normalise(opening)), opening
    for opening in [*prose(pack), TEXTS[pack.glotlid], *NO_NEWS.get(pack.code, ()), "https://pages.example/garden/roses"]:
        assert not pack.web.news.search(pack.normalise(opening)), opening


def test_damage_is_found_in_damaged_text_only(pack: Pack) -> None:
    for text in DAMAGE[pack.code]:
        assert pack.web.damage.search(text), text
    for text in [*prose(pack), TEXTS[pack.glotlid], *PLATES[pack.code], "Café Zürich naïve façade Gdańsk Łódź"]:
        assert not pack.web.damage.search(text), text


def test_expressions_are_written_in_the_letters_they_meet(pack: Pack) -> None:
    """A page is normalised before its lines are looked at: a look-alike in an expression would never match."""
    letters = regex.compile(r"\p{L}")
    for pattern in (pack.web.news.pattern, pack.web.boiler_plate.pattern):
        for letter in set(letters.findall(pattern)):
            assert pack.normalise(letter) == letter, letter


def test_the_shipped_urdu_prose_is_urdu_and_text() -> None:
    pack = load_pack("ur")
    texts = [record.text or "" for record in text_records("ur")]
    for text in texts:
        assert not pack.web.boiler_plate.search(text) and not pack.web.damage.search(text) and not pack.web.news.search(text), text
    found = Counter(word for text in texts for word in tokens(text))
    counts = {label: sum(found[tokens(word)[0]] for word in words) for label, words in pack.common_words.items()}
    assert counts.pop("urd_Arab") > 1000 and counts.pop(SHARED) > 1000 and not any(counts.values()), counts


def test_clean_pages_of_the_web_sample_are_clean(pack: Pack) -> None:
    rows = [json.loads(line) for line in (SAMPLE / f"{pack.glotlid}.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [pack.normalise(row["text"]) for row in rows if row["label"] == "clean"]
    assert len(texts) >= 6
    for text in texts:
        assert pack.normalise(text) == text and not pack.web.damage.search(text), text
        found = Counter(tokens(text))
        if pack.pieces_a_word == 1:
            other = [word for label, words in pack.common_words.items() if label not in (pack.glotlid, SHARED) for word in words]
            assert not [word for word in other if found[tokens(word)[0]]], text


def test_clean_pages_have_enough_of_the_languages_own_words(pack: Pack) -> None:
    """At least twice as many as a page needs to be sure; where no other language is listed, none is needed."""
    rows = [json.loads(line) for line in (SAMPLE / f"{pack.glotlid}.jsonl").read_text(encoding="utf-8").splitlines()]
    for text in [pack.normalise(row["text"]) for row in rows if row["label"] == "clean" and len(pack.common_words) > 1]:
        counts = common_word_counts(text, pack)
        assert counts[pack.glotlid] + counts[SHARED] >= 2 * len(tokens(text)) / EACH, text
