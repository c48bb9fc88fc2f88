//! Miniature copies of the public data sets in their official layouts: a few clips each, the formats to the letter.

use std::fs;
use std::path::Path;

/// Writes a file and the folders above it.
pub fn put(folder: &Path, file: &str, content: &str) {
    let path = folder.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Two classes with four training and two test clips each. `video` is called with the path of every clip and its class.
pub fn write(dataset: &str, folder: &Path, video: &dyn Fn(&Path, usize)) {
    let place = |path: String, class: usize| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        video(&path, class);
    };
    match dataset {
        "k400" => k400(folder, &place),
        "ssv2" => ssv2(folder, &place),
        "ucf101" => ucf101(folder, &place),
        "hmdb51" => hmdb51(folder, &place),
        "diving48" => diving48(folder, &place),
        "epic100" => epic100(folder, &place),
        other => panic!("{other}"),
    }
}

/// Clips of a part: (class, number).
fn clips(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..2).flat_map(move |class| (0..count).map(move |number| (class, number)))
}

fn k400(folder: &Path, place: &dyn Fn(String, usize)) {
    let classes = ["air drumming", "zumba"];
    for (part, count) in [("train", 4), ("val", 2)] {
        let mut list = String::from("\"label\",\"youtube_id\",\"time_start\",\"time_end\",\"split\"\n");
        for (class, number) in clips(count) {
            let id = format!("{part}{class}_-{number}");
            list += &format!("\"{}\",\"{id}\",{},{},\"{part}\"\n", classes[class], 10 + number, 20 + number);
            place(format!("{part}/{}/{id}_{:06}_{:06}.mp4", classes[class], 10 + number, 20 + number), class);
        }
        put(folder, &format!("annotations/{part}.csv"), &list);
    }
}

fn ssv2(folder: &Path, place: &dyn Fn(String, usize)) {
    let templates = [
        "Pulling [something] from left to right",
        "Putting [something similar to other things that are already there]",
    ];
    put(
        folder,
        "labels/labels.json",
        "{\"Pulling something from left to right\":\"0\",\"Putting something similar to other things that are already there\":\"1\"}",
    );
    let mut id = 1000;
    for (part, count) in [("train", 4), ("validation", 2)] {
        let mut items = Vec::new();
        for (class, _) in clips(count) {
            id += 1;
            let template = templates[class];
            items.push(format!(
                "{{\"id\":\"{id}\",\"label\":\"pulling a cup from left to right\",\"template\":\"{template}\",\"placeholders\":[\"a cup\"]}}"
            ));
            place(format!("20bn-something-something-v2/{id}.webm"), class);
        }
        put(folder, &format!("labels/{part}.json"), &format!("[{}]", items.join(",\n")));
    }
    put(folder, "labels/test.json", "[{\"id\":\"1\"},{\"id\":\"2\"}]");
}

fn ucf101(folder: &Path, place: &dyn Fn(String, usize)) {
    let classes = ["ApplyEyeMakeup", "YoYo"];
    put(folder, "ucfTrainTestlist/classInd.txt", "1 ApplyEyeMakeup\r\n2 YoYo\r\n");
    for split in 1..=3 {
        let (mut train, mut test) = (String::new(), String::new());
        for (class, number) in clips(6) {
            let name = classes[class];
            let path = format!("{name}/v_{name}_g{:02}_c01.avi", number + 1);
            // Each split tests other groups.
            if number / 2 == split - 1 {
                test += &format!("{path}\r\n");
            } else {
                train += &format!("{path} {}\r\n", class + 1);
            }
            if split == 1 {
                place(format!("UCF-101/{path}"), class);
            }
        }
        put(folder, &format!("ucfTrainTestlist/trainlist{split:02}.txt"), &train);
        put(folder, &format!("ucfTrainTestlist/testlist{split:02}.txt"), &test);
    }
}

fn hmdb51(folder: &Path, place: &dyn Fn(String, usize)) {
    for (class, name) in ["brush_hair", "wave"].into_iter().enumerate() {
        for split in 1..=3 {
            let mut list = String::new();
            for number in 0..7 {
                let file = format!("take (#{number})_{name}_u_nm_np1_ba_goo_{number}.avi");
                let part = match number {
                    6 => 0,
                    _ if number / 2 == split - 1 => 2,
                    _ => 1,
                };
                list += &format!("{file} {part} \n");
                if split == 1 {
                    place(format!("{name}/{file}"), class);
                }
            }
            put(folder, &format!("testTrainMulti_7030_splits/{name}_test_split{split}.txt"), &list);
        }
    }
}

fn diving48(folder: &Path, place: &dyn Fn(String, usize)) {
    put(
        folder,
        "Diving48_vocab.json",
        "[[\"Back\",\"15som\",\"05Twis\",\"FREE\"],[\"Forward\",\"25som\",\"NoTwis\",\"PIKE\"]]",
    );
    for (part, count) in [("train", 4), ("test", 2)] {
        let mut items = Vec::new();
        for (class, number) in clips(count) {
            let name = format!("{part}{class}_{number:05}");
            items.push(format!(
                "{{\"vid_name\": \"{name}\", \"label\": {class}, \"start_frame\": 0, \"end_frame\": 23}}"
            ));
            place(format!("rgb/{name}.mp4"), class);
        }
        put(folder, &format!("Diving48_V2_{part}.json"), &format!("[{}]", items.join(",")));
    }
}

fn epic100(folder: &Path, place: &dyn Fn(String, usize)) {
    put(
        folder,
        "EPIC_100_verb_classes.csv",
        "id,key,instances,category\n0,take,\"['get', 'take']\",retrieve\n1,put,\"['put']\",leave\n",
    );
    put(
        folder,
        "EPIC_100_noun_classes.csv",
        "id,key,instances,category\n0,tap,\"['tap', 'tap:hot']\",appliances\n1,spoon,\"['spoon']\",cutlery\n",
    );
    let header = "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,\
                  narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n";
    for (part, count) in [("train", 4), ("validation", 2)] {
        let mut list = header.to_owned();
        for (class, number) in clips(count) {
            let (person, video) =
                (format!("P0{}", class + 1), format!("P0{}_{number:02}{}", class + 1, &part[..1]));
            let noun = (class + number) % 2;
            // The frame numbers are those of 59.94 frames per second; the videos have fewer.
            list += &format!(
                "{video}_0,{person},{video},00:00:00.56,00:00:00.10,00:00:00.60,6,36,\"take, then put\",get,{class},tap:hot,{noun},['tap'],[{noun}]\n"
            );
            place(format!("{person}/videos/{video}.MP4"), class);
        }
        put(folder, &format!("EPIC_100_{part}.csv"), &list);
    }
}
