"""Correct text in each language that web text can be cleaned in, written for these tests, and some in languages near to them."""

TEXTS = {
    "urd_Arab": (
        "لاہور پاکستان کا ایک قدیم شہر ہے اور راوی کے کنارے آباد ہے۔ یہاں کے باغ، مسجدیں اور بازار دور دور تک مشہور ہیں۔ "
        "سردیوں میں لوگ صبح سویرے ناشتے کے لیے پرانے شہر جاتے ہیں۔ گرمیوں میں آم اور فالسے کا شربت شوق سے پیا جاتا ہے۔ "
        "شام کو بچے باغوں میں کھیلتے ہیں اور بزرگ بیٹھ کر باتیں کرتے ہیں۔"
    ),
    "hin_Deva": (
        "पानी हमारे जीवन के लिए बहुत ज़रूरी है। हम इसे पीते हैं, इससे खाना बनाते हैं और खेतों को सींचते हैं। गाँव में लोग "
        "कुएँ और तालाब से पानी लाते हैं। शहरों में पानी नल से आता है। हमें पानी को बचाकर रखना चाहिए, क्योंकि इसके बिना "
        "कोई पेड़, पशु या मनुष्य जीवित नहीं रह सकता।"
    ),
    "ben_Beng": (
        "আমাদের গ্রামের পাশে একটি ছোট নদী আছে। বর্ষাকালে নদীতে অনেক পানি থাকে এবং জেলেরা নৌকা নিয়ে মাছ ধরতে যায়। সকালে "
        "শিশুরা নদীর ধারে খেলা করে। শীতকালে নদীর পানি কমে যায়, তখন মানুষ হেঁটেই পার হতে পারে। নদীর দুই পাশে ধানের খেত আর "
        "সবুজ গাছপালা দেখা যায়। আমরা এই নদীকে খুব ভালোবাসি।"
    ),
    "tam_Taml": (
        "எங்கள் ஊரில் ஒரு பெரிய நூலகம் இருக்கிறது. அங்கே பல வகையான புத்தகங்கள் உள்ளன. மாணவர்கள் மாலை நேரத்தில் அங்கே "
        "சென்று படிக்கிறார்கள். நான் வாரம் ஒரு முறை அங்கே போகிறேன். கதைப் புத்தகங்கள் எனக்கு மிகவும் பிடிக்கும். "
        "புத்தகங்களைப் படித்தால் நம் அறிவு வளரும் என்று என் அம்மா சொல்வார்."
    ),
    "tha_Thai": (
        "ประเทศไทยมีสามฤดู คือ ฤดูร้อน ฤดูฝน และฤดูหนาว ในฤดูร้อนอากาศร้อนมาก คนจำนวนมากจึงไปเที่ยวทะเล "
        "ในฤดูฝนมีฝนตกเกือบทุกวัน ชาวนาเริ่มปลูกข้าวในช่วงนี้ ส่วนในฤดูหนาวอากาศเย็นสบาย โดยเฉพาะทางภาคเหนือ "
        "นักท่องเที่ยวชอบขึ้นไปดูทะเลหมอกบนภูเขาในตอนเช้า"
    ),
    "swh_Latn": (
        "Kijiji chetu kiko karibu na mlima mkubwa. Watu wengi wa kijiji hiki ni wakulima, na wanalima mahindi, maharagwe "
        "na ndizi. Asubuhi watoto huenda shuleni kwa miguu, na jioni hurudi nyumbani kuwasaidia wazazi wao. Siku ya soko "
        "watu hukutana ili kuuza na kununua bidhaa. Tunapenda kijiji chetu kwa sababu kina hewa safi na watu wake ni "
        "wakarimu."
    ),
    "tur_Latn": (
        "Kahvaltı günün en önemli öğünüdür. Türkiye'de insanlar kahvaltıda genellikle peynir, zeytin, domates, yumurta ve "
        "taze ekmek yer. Yanında da sıcak çay içerler. Hafta sonları aileler uzun kahvaltılar için bir araya gelir. Bazı "
        "bölgelerde sofraya bal, kaymak ve ev yapımı reçeller de konur. Güzel bir kahvaltı insana bütün gün için güç "
        "verir."
    ),
    "vie_Latn": (
        "Gia đình tôi sống ở một thị trấn nhỏ gần biển. Mỗi buổi sáng, bố tôi đi chợ mua cá tươi và rau xanh. Mẹ tôi nấu "
        "cơm và chuẩn bị bữa sáng cho cả nhà. Sau khi ăn xong, tôi đạp xe đến trường cùng các bạn. Buổi chiều, chúng tôi "
        "thường ra bãi biển chơi và ngắm hoàng hôn. Tôi rất yêu quê hương của mình."
    ),
    "ind_Latn": (
        "Pasar tradisional adalah tempat yang ramai setiap pagi. Para pedagang menjual sayuran, buah-buahan, ikan, dan "
        "daging segar. Ibu saya suka berbelanja di sana karena harganya murah dan barangnya bisa ditawar. Setelah selesai "
        "berbelanja, kami biasanya membeli kue untuk dimakan di rumah. Pasar juga menjadi tempat orang-orang bertemu dan "
        "berbincang dengan tetangga mereka."
    ),
    "fin_Latn": (
        "Suomessa on tuhansia järviä ja laajoja metsiä. Kesällä monet perheet matkustavat mökille, jossa he uivat, "
        "kalastavat ja saunovat. Illat ovat pitkiä ja valoisia, sillä aurinko laskee vasta myöhään. Syksyllä ihmiset "
        "poimivat metsästä marjoja ja sieniä. Talvella järvet jäätyvät, ja lapset luistelevat ja hiihtävät. Luonto on "
        "suomalaisille hyvin tärkeä."
    ),
}
# What may be taken for Urdu (three) and for Indonesian.
NEAR = {
    "pes_Arab": (
        "کتاب یکی از بهترین دوستان انسان است. ما با خواندن کتاب می‌توانیم با اندیشه‌های مردم دیگر آشنا شویم و دنیا را "
        "بهتر بشناسیم. پدرم هر شب برای من داستان می‌خواند و من از شنیدن آن بسیار خوشحال می‌شدم. امروز هم وقتی کتابی تازه "
        "می‌خرم، به یاد آن شب‌ها می‌افتم."
    ),
    "arb_Arab": (
        "يذهب الأطفال إلى المدرسة كل صباح مع أصدقائهم. في المدرسة يتعلمون القراءة والكتابة والحساب. وبعد انتهاء الدروس "
        "يعودون إلى بيوتهم ويتناولون الغداء مع أسرهم. كان أبي يقول لي دائما إن العلم نور، وإن الذي يقرأ كثيرا يعرف أشياء "
        "كثيرة عن هذا العالم."
    ),
    "pnb_Arab": (
        "میرا پنڈ لہور دے نیڑے اے۔ ایتھے دے لوک بہت سادہ تے محنتی نیں۔ اوہ سویرے اُٹھ کے کھیتاں وچ کم کردے نیں تے شام نوں "
        "گھر آندے نیں۔ ساڈے پنڈ وچ اک وڈا بوہڑ دا رکھ اے، جیہدے تھلے بزرگ بیٹھ کے گلاں کردے نیں۔ بچے اوتھے کھیڈدے نیں تے "
        "مائیاں اوہناں نوں کہانیاں سناندیاں نیں۔"
    ),
    "zsm_Latn": (
        "Saya tinggal di sebuah kampung yang terletak berhampiran dengan sungai. Setiap pagi, ayah saya pergi ke pejabat "
        "dengan kereta, manakala ibu saya bekerja di sebuah universiti. Saya suka tinggal di kampung kerana udaranya "
        "segar dan orangnya peramah. Pada hari Ahad, kami sekeluarga pergi ke pasar untuk membeli ikan dan sayur-sayuran."
    ),
}
