"""Urdu mixed with English and Urdu in Latin letters, in pieces, for the offline teacher. Data only.

Each area has its problems (or questions) and advice that fits every one of them.
"""

from data_gen.offline.words import lines, row, table

# --- code-mixed: (problems, in the present tense, after "دو دن سے"; advice)
MIXED = (
    (lines("""
        میرا laptop بہت slow چل رہا ہے
        میرا laptop بار بار hang ہو جاتا ہے
        میرے laptop کی screen اچانک freeze ہو جاتی ہے
        میرا laptop on ہونے میں دس منٹ لگا رہا ہے
    """), lines("""
        پہلے task manager کھول کر دیکھیں کہ کون سی app زیادہ memory لے رہی ہے، اور اسے بند کر دیں۔
        غیر ضروری files اور programs delete کر دیں تاکہ drive میں کچھ space خالی ہو جائے۔
        Operating system اور antivirus دونوں کو update کر کے ایک full scan چلا لیں۔
        جو apps startup پر خود چلتی ہیں ان میں سے فالتو کو disable کر دیں۔
        دیکھیں کہ fan ٹھیک چل رہا ہے، گرمی سے بھی performance گر جاتی ہے۔
        اگر یہ سب کر کے بھی فرق نہ پڑے تو پرانی hard disk کی جگہ SSD لگوا لیں۔
    """)),
    (lines("""
        گھر کا internet بہت slow ہے
        گھر کا WiFi بار بار disconnect ہو رہا ہے
        میری video calls میں آواز اٹک اٹک کر آتی ہے
        میرے room میں WiFi کے signals نہیں آ رہے
    """), lines("""
        Router کو ایک منٹ کے لیے off کر کے دوبارہ on کریں، اکثر مسئلہ اسی سے حل ہو جاتا ہے۔
        کسی website پر speed test کریں اور نتیجے کا screenshot رکھ لیں۔
        Router کو گھر کے درمیان میں اور کسی اونچی جگہ پر رکھیں۔
        WiFi کا password بدل دیں تاکہ پتا چلے کہ کوئی اور تو connection استعمال نہیں کر رہا۔
        جس وقت call ہو، باقی devices پر downloads روک دیں۔
        پھر بھی مسئلہ رہے تو internet company کی helpline پر complaint درج کروائیں اور complaint number لکھ لیں۔
    """)),
    (lines("""
        میرا assignment complete نہیں ہو رہا
        مجھ سے thesis کا پہلا chapter لکھا نہیں جا رہا
        میری research report میں بہت غلطیاں نکل رہی ہیں
        مجھے project کا topic سمجھ نہیں آ رہا
    """), lines("""
        پہلے پورا کام چھوٹے چھوٹے parts میں بانٹیں اور ہر part کی ایک deadline رکھیں۔
        Teacher کو ایک مختصر email لکھ کر پوچھ لیں کہ وہ کن points پر زور چاہتے ہیں۔
        ایک rough draft لکھ لیں، اس میں spelling اور style کی فکر نہ کریں۔
        ہر source کا reference ساتھ ساتھ note کرتے جائیں، آخر میں بہت وقت بچتا ہے۔
        موبائل silent پر رکھیں اور پچیس منٹ کام کر کے پانچ منٹ کا break لیں۔
        Submit کرنے سے پہلے کسی دوست سے proofread کروا لیں۔
    """)),
    (lines("""
        مجھے presentation دینے سے بہت ڈر لگ رہا ہے
        میری slides boring بن رہی ہیں
        office کی meetings میں میری آواز کانپنے لگتی ہے
        مجھے audience کے سامنے confidence نہیں آتا
    """), lines("""
        ہر slide پر تین سے زیادہ points نہ لکھیں اور font بڑا رکھیں۔
        آئینے کے سامنے یا کسی دوست کے سامنے دو بار practice کریں اور time note کریں۔
        شروع میں کوئی چھوٹی سی story یا سوال رکھیں، اس سے audience کی توجہ مل جاتی ہے۔
        اپنی practice کی video record کر کے دیکھیں کہ کہاں بہتری چاہیے۔
        Meeting سے پہلے projector اور file دونوں check کر لیں۔
        بولنے سے پہلے ایک گہرا سانس لیں اور پہلا sentence زبانی یاد رکھیں۔
    """)),
    (lines("""
        میرا online order نہیں پہنچ رہا
        میرے order کا refund نہیں آ رہا
        مجھے غلط product کے بدلے نیا product نہیں مل رہا
        shopping website میرے messages کا reply نہیں کر رہی
    """), lines("""
        App میں جا کر order کا tracking number دیکھیں اور اس کا screenshot لے لیں۔
        Customer service کو order number کے ساتھ ایک واضح email بھیجیں۔
        آئندہ parcel کھولتے وقت video ضرور بنائیں، یہ بعد میں proof کے کام آتی ہے۔
        نئی website سے ہمیشہ cash on delivery پر ہی چیز منگوائیں۔
        خریدنے سے پہلے reviews اور return policy دونوں پڑھ لیا کریں۔
        اگر payment card سے کی ہے تو bank میں dispute درج کروائیں اور رسید محفوظ رکھیں۔
    """)),
    (lines("""
        مجھے job interview کی calls نہیں آ رہیں
        میں ہر جگہ CV بھیج کر تھک چکا ہوں
        مجھے کوئی company reply نہیں کرتی
        میری job application بار بار reject ہو رہی ہے
    """), lines("""
        CV کو ایک یا دو pages تک رکھیں اور سب سے اوپر اپنی اہم skills لکھیں۔
        ہر company کے لیے cover letter الگ لکھیں، ایک ہی copy سب کو نہ بھیجیں۔
        اپنی online profile پر اچھی تصویر اور مکمل information لگائیں۔
        کوئی مفت online course کر کے اس کا certificate CV میں شامل کریں۔
        اپنے پرانے teachers اور class fellows سے رابطہ رکھیں، بہت سی jobs اسی طرح ملتی ہیں۔
        ایک دو mock interviews کریں تاکہ سوال سن کر panic نہ ہوں۔
    """)),
    (lines("""
        میری bank app نہیں چل رہی
        مجھے unknown numbers سے OTP مانگنے کی calls آ رہی ہیں
        میرے bank account کے بارے میں عجیب messages آ رہے ہیں
        مجھے lottery جیتنے کے fake messages مل رہے ہیں
    """), lines("""
        اپنا PIN یا OTP کسی کو نہ بتائیں، bank کبھی call پر یہ نہیں مانگتا۔
        Card کے پیچھے لکھی ہوئی helpline پر خود call کر کے پوچھیں۔
        App صرف official store سے update کریں، کسی link سے نہیں۔
        اپنا password بدل دیں اور two-step verification on کر لیں۔
        شک ہو تو card کو app یا helpline سے فوراً block کروا دیں۔
        ایسے numbers کو block کر کے report بھی کر دیں۔
    """)),
    (lines("""
        میں gym جا رہا ہوں مگر weight کم نہیں ہو رہا
        میری exercise کی routine بن ہی نہیں رہی
        office کی sitting job کی وجہ سے میرا weight بڑھ رہا ہے
        میں diet plan پر قائم نہیں رہ پا رہا
    """), lines("""
        شروع میں صرف بیس منٹ کی brisk walk کریں اور ہر ہفتے پانچ منٹ بڑھائیں۔
        Cold drinks اور fast food کی جگہ پانی، دہی اور پھل لیں۔
        ایک diary میں روز کا کھانا اور exercise note کریں۔
        ہر ایک گھنٹے بعد chair سے اٹھ کر تھوڑی stretching کریں۔
        رات کو time پر سوئیں، نیند کی کمی سے بھوک بھی بڑھتی ہے اور energy بھی کم ہوتی ہے۔
        کوئی بھی سخت plan شروع کرنے سے پہلے doctor سے check-up کروا لیں۔
    """)),
    (lines("""
        مجھے time management میں بہت مسئلہ ہو رہا ہے
        میرا سارا time social media پر ضائع ہو رہا ہے
        office اور گھر میں balance نہیں بن رہا
        میں ہر کام last minute پر کرتا ہوں
    """), lines("""
        رات کو سونے سے پہلے اگلے دن کے تین important کام لکھ لیں۔
        Phone کی settings میں جا کر ہر app کا daily limit لگا دیں۔
        سب سے مشکل task صبح کے وقت کریں جب ذہن fresh ہوتا ہے۔
        Notifications بند رکھیں اور emails دن میں صرف دو بار دیکھیں۔
        ہر کام کے لیے calendar میں وقت block کر لیں، بیچ میں چھوٹے breaks بھی رکھیں۔
        جو کام آپ کے ذمے نہیں، اسے polite طریقے سے no کہنا سیکھیں۔
    """)),
    (lines("""
        میری English speaking improve نہیں ہو رہی
        مجھے English میں بات کرتے ہوئے شرم آتی ہے
        میری vocabulary بہت کم ہے
        مجھے grammar کے rules یاد نہیں رہتے
    """), lines("""
        روز پندرہ منٹ کوئی easy English podcast سنیں اور جملے دہرائیں۔
        ایک دوست کو partner بنا لیں اور اس سے صرف English میں بات کریں۔
        نئے words کو list کی طرح نہیں بلکہ sentence میں یاد کریں۔
        بچوں کی story books سے شروع کریں، ان کی language آسان ہوتی ہے۔
        اپنی آواز record کر کے سنیں اور pronunciation ٹھیک کریں۔
        غلطی سے نہ گھبرائیں، practice سے ہی confidence آتا ہے۔
    """)),
)  # fmt: skip
SINCE = row("دو دن سے، پچھلے ہفتے سے، ایک مہینے سے، کئی دن سے، عید کے بعد سے، پیر سے، کچھ عرصے سے")
# who writes: "میں کراچی میں ... ہوں"
MIXED_JOBS = row("""
    ایک software house میں internee، ایک bank میں officer، ایک private school میں teacher، ایک startup میں designer،
    university میں student، ایک call center میں agent، ایک hospital میں receptionist، ایک shop میں salesman،
    college میں lecturer، ایک NGO میں volunteer، ایک newspaper میں reporter، ایک clinic میں pharmacist
""")
# why it is urgent, after "اتوار کو" and the like
MIXED_DUE = lines("""
    میرا viva ہے
    boss کے ساتھ meeting ہے
    میرا online test ہے
    client کو report دینی ہے
    family کے ساتھ trip پر نکلنا ہے
    میری class کا group discussion ہے
    مجھے ایک event attend کرنا ہے
    میرے exams start ہو رہے ہیں
    دفتر میں training session ہے
    میری flight ہے
""")
MIXED_ASK = lines("""
    Please کوئی آسان solution بتائیں۔
    مجھے کیا کرنا چاہیے؟ Step by step بتا دیں۔
    کوئی practical tip دیں۔
    آپ کا کیا advice ہے؟
    کیا اس کا کوئی quick حل ہے؟
    Kindly guide کر دیں۔
    اسے کیسے handle کروں؟
    کوئی simple طریقہ share کریں۔
    ذرا detail میں سمجھا دیں۔
    دو تین useful باتیں بتا دیں۔
""")
MIXED_OPENERS = lines("""
    یہ common مسئلہ ہے، tension نہ لیں۔
    اس کا solution مشکل نہیں۔
    چند چیزیں try کر کے دیکھیں۔
    گھبرانے کی ضرورت نہیں، step by step چلیں۔
    آپ کی problem سمجھ میں آتی ہے۔
""")
MIXED_ENGLISH = lines("""
    You should contact customer support and explain your problem to them in detail.
    Try restarting everything first, and if that does not help, ask an expert for advice.
    Make a plan for the week and follow it one step at a time.
""")

# --- Roman Urdu. m or f after | where a verb or adjective follows the gender
ROMAN_MALE = row("""
    Ahmed، Ali، Bilal، Hassan، Umar، Kamran، Faisal، Imran، Tariq، Saleem، Yousuf، Hamza، Zahid، Adnan، Rashid، Naeem
""")
ROMAN_FEMALE = row("""
    Ayesha، Fatima، Sara، Zainab، Maryam، Hina، Nadia، Sana، Rabia، Amna، Sadia، Maria، Kiran، Iqra، Saba، Farah
""")
ROMAN_CITIES = row("""
    Lahore، Karachi، Multan، Peshawar، Faisalabad، Sialkot، Sukkur، Quetta، Gujrat، Mardan، Sahiwal، Swat، Gilgit،
    Attock
""")
ROMAN_WHEN = row("""
    aaj subah، kal shaam، kal raat، parson، pichle hafte، Eid se pehle، itwar ki subah، chand din pehle، khane ke baad،
    dopahar ko
""")
ROMAN_PLACES = row("""
    daftar mein، bazaar mein، bus mein، shadi mein، college mein، gaon mein، park mein، hospital mein،
    chai ki dukaan par، rail gari mein
""")
ROMAN_RELATIVES = row("""
    mere bhai، meri behan، mere chacha، meri khala، mere dost، mere parosi، meri parosan، mere mamu، meri phuphi،
    mere ustaad، meri nani، mere dada
""")
ROMAN_ASK = lines("""
    Mujhe kya karna chahiye?
    Aap kya mashwara dete hain?
    Koi aasan hal bata dein.
    Meri rehnumai karein.
    Is ka kya ilaaj hai?
    Meherbani kar ke batayein.
    Koi gharelu tareeqa batayein.
    Is baare mein kuch batayein.
""")
ROMAN_ASK_FACT = lines("""
    Sahi jawab batayein.
    Ek jumle mein jawab dein.
    Meherbani kar ke batayein.
    Soch kar jawab dein.
    Poora jumla likhein.
""")
# problems after "kai din se", advice
ROMAN = (
    (lines("""
        mujhe raat ko neend nahi aati
        main raat ko baar baar jaag jaata hoon
        mujhe din bhar thakan rehti hai
        subah uthna bohat mushkil lagta hai
    """), lines("""
        Rozana ek hi waqt par soyein aur ek hi waqt par uthein.
        Sone se ek ghanta pehle mobile band kar dein.
        Shaam ke baad chai na piyein.
        Din mein thori der dhoop mein zaroor chalein.
        Raat ka khana halka rakhein aur jaldi kha lein.
        Kamre ko andhera aur thanda rakhein.
        Do teen hafte tak farq na pare to doctor se milein.
    """)),
    (lines("""
        mera parhai mein dil nahi lagta
        mujhe sabaq yaad nahi rehta
        imtihan ka dar mujhe pareshan rakhta hai
        riyazi ke sawal samajh nahi aate
    """), lines("""
        Rozana thora thora parhein, sab kuch aakhri din par na chorein.
        Parhne ki jagah se mobile door rakhein.
        Har sabaq parh kar apne alfaaz mein likhein.
        Mushkil sawal ustaad se dobara samajh lein.
        Purane parche hal karne ki mashq karein.
        Har ek ghante ke baad das minute ka waqfa lein.
        Kisi dost ko sabaq samjhayein, is se apni samajh bhi pakki hoti hai.
    """)),
    (lines("""
        ghar ka kharcha poora nahi hota
        tankhwah jaldi khatam ho jaati hai
        mujh se bachat nahi hoti
        bijli ka bill bohat zyada aa raha hai
    """), lines("""
        Har kharcha ek copy mein likhein taake pata chale paisa kahan jaata hai.
        Bazaar jaane se pehle list bana lein.
        Aamdani milte hi thori si raqam alag rakh dein.
        Khali kamre ki batti aur pankha band rakhein.
        Rashan mahine mein ek baar thok ki dukaan se lein.
        Dikhawe ke kharche aur qarz se bachein.
        Purani cheez ki marammat ho sakti ho to nayi na khareedein.
    """)),
    (lines("""
        mera bacha sabzi nahi khaata
        mera bacha har waqt mobile maangta hai
        mera bacha school jaane se inkaar karta hai
        mera bacha baat baat par zid karta hai
    """), lines("""
        Bache se narmi se baat karein aur us ki baat poori sunein.
        Us ke saath rozana thora waqt khelein.
        Achi aadat par us ki tareef karein, daantne se kaam na lein.
        Khud wohi karein jo aap us se chahte hain.
        Us ke din ka ek nizaam banayein aur us par qaim rahein.
        Zaroorat ho to us ke ustaad se mashwara karein.
        Sabr rakhein, nayi aadat banne mein waqt lagta hai.
    """)),
    (lines("""
        mere gamlon ke paude sookh rahe hain
        mere paudon ke patte peele ho rahe hain
        mere paudon mein keere lag rahe hain
        mere paude barhte hi nahi
    """), lines("""
        Paani subah ya shaam ko dein, dopahar mein nahi.
        Gamle ke neeche suraakh zaroor ho taake faltu paani nikal jaye.
        Mitti mein purani gobar ki khaad milayein.
        Peele aur kharab patte tor dein.
        Gamlon ko aisi jagah rakhein jahan subah ki dhoop aati ho.
        Keere hon to sabun mile paani ka halka chirkao karein.
        Mitti ko ungli se choo kar dekhein, khushk ho to hi paani dein.
    """)),
    (lines("""
        mujhe logon ke saamne bolne se dar lagta hai
        mujhe naye log se baat karte hue sharm aati hai
        daftar mein meri baat koi nahi sunta
        mera aitmaad kam hota ja raha hai
    """), lines("""
        Aaine ke saamne rozana paanch minute bolne ki mashq karein.
        Pehle choti mehfil mein baat shuru karein.
        Apni baat ke do teen nukte kaghaz par likh lein.
        Doosron ki baat dhyaan se sunein, phir apni raye dein.
        Ghalti ho jaye to muskura kar aage barh jayein.
        Gehri saans lein aur aahista bolein.
        Apni choti kamyabiyan likhte rahein, is se hausla barhta hai.
    """)),
)  # fmt: skip
ROMAN_SINCE = row("kai din se، ek mahine se، pichle hafte se، kuch arse se، Eid ke baad se، do teen din se")
# thing, plural | gender
ROMAN_THINGS = table("""
    seb | m
    aam | m
    kele | m
    ande | m
    qalam | m
    ghubare | m
    kitabein | f
    pencilein | f
    tofian | f
    plateein | f
    gendein | f
    rotian | f
""")
ROMAN_SOLVE = lines("""
    Hisaab laga kar batayein.
    Jawab ke saath tareeqa bhi likhein.
    Soch kar jawab dein.
    Marhala waar hal karein.
    Jaldi se bata dein.
    Poora hal likhein.
""")
# kind of fact | question | answer, the fact in [ ]
ROMAN_FACTS = table("""
    sign | Pakistan ka qaumi khel kaun sa hai | Pakistan ka qaumi khel [hockey] hai.
    sign | Pakistan ka qaumi phool kaun sa hai | Pakistan ka qaumi phool [chambeli] hai.
    sign | Pakistan ka qaumi janwar kaun sa hai | Pakistan ka qaumi janwar [markhor] hai.
    sign | Pakistan ka qaumi parinda kaun sa hai | Pakistan ka qaumi parinda [chakor] hai.
    place | Punjab ka darulhukumat kaun sa shehar hai | Punjab ka darulhukumat [Lahore] hai.
    place | Sindh ka darulhukumat kaun sa shehar hai | Sindh ka darulhukumat [Karachi] hai.
    place | Balochistan ka darulhukumat kaun sa shehar hai | Balochistan ka darulhukumat [Quetta] hai.
    place | Minar-e-Pakistan kis shehar mein hai | Minar-e-Pakistan [Lahore] mein hai.
    place | Faisal Masjid kis shehar mein hai | Faisal Masjid [Islamabad] mein hai.
    place | Taj Mahal kis shehar mein hai | Taj Mahal [Agra] mein hai.
    place | Char Minar kis shehar mein hai | Char Minar [Hyderabad Deccan] mein hai.
    place | Quaid-e-Azam ka mazar kis shehar mein hai | Quaid-e-Azam ka mazar [Karachi] mein hai.
    number | ek saal mein kitne mahine hote hain | Ek saal mein [barah] mahine hote hain.
    number | ek din mein kitne ghante hote hain | Ek din mein [chaubees] ghante hote hain.
    number | ek hafte mein kitne din hote hain | Ek hafte mein [saat] din hote hain.
    number | makri ki kitni taangein hoti hain | Makri ki [aath] taangein hoti hain.
    animal | sehra ka jahaz kis janwar ko kehte hain | Sehra ka jahaz [oont] ko kehte hain.
    animal | jangal ka badshah kis janwar ko kehte hain | Jangal ka badshah [sher] ko kehte hain.
    animal | dunya ka sab se ooncha janwar kaun sa hai | Dunya ka sab se ooncha janwar [zarafa] hai.
    year | Pakistan kis saal azaad hua | Pakistan [1947] mein azaad hua.
    year | Pakistan ne ek roza cricket ka aalmi cup kab jeeta | Pakistan ne yeh cup [1992] mein jeeta.
    year | Allama Iqbal kis saal paida hue | Allama Iqbal [1877] mein paida hue.
""")
ROMAN_ENGLISH = lines("""
    You should see a doctor and follow the advice that you are given there.
    Please try to make a plan first and then follow it every day.
    The answer can be found in any good school book.
""")
ROMAN_IN_SCRIPT = lines("""
    آپ کو اس بارے میں کسی جاننے والے سے مشورہ کرنا چاہیے۔
    اس سوال کا جواب کتاب میں لکھا ہوا ہے۔
    پہلے ایک منصوبہ بنائیں، پھر اس پر عمل کریں۔
""")
