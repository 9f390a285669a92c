//! A volume is filled from the image, and no image leads that copy out of itself.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_volume_gets_the_images_directory_as_it_is() {
    if !common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = seeded(&root).await;
    let id = create(
        &engine,
        "copy",
        seeded_request(&["full:/data", "none:/data/sub:nocopy"]),
    )
    .await;
    let full = data(&root, "full");
    assert_eq!(names(&full), ["f", "fifo", "hard", "link", "null", "sub"]);
    let meta = |name: &str| std::fs::symlink_metadata(full.join(name)).unwrap();
    let look = |name: &str| {
        let meta = meta(name);
        (
            meta.permissions().mode() & 0o7777,
            meta.uid(),
            meta.gid(),
            meta.mtime(),
        )
    };
    let then = 981_173_106;
    assert_eq!(look(""), (0o2775, 12, 34, then));
    assert_eq!(look("sub"), (0o700, 5, 6, then));
    assert_eq!(look("f"), (0o4755, 5, 6, then));
    assert_eq!(look("sub/y"), (0o600, 5, 6, then));
    assert_eq!(look("link").3, then);
    assert_eq!(look("null").0, 0o666);
    assert!(meta("null").file_type().is_char_device() && meta("null").rdev() == 0x103);
    assert!(meta("fifo").file_type().is_fifo());
    assert_eq!(meta("hard").ino(), meta("f").ino(), "a hard link stays one");
    assert_eq!(
        std::fs::read_link(full.join("link")).unwrap(),
        Path::new("/etc/shadow")
    );
    assert_eq!(names(&data(&root, "none")), Vec::<String>::new());
    assert_eq!(names(full.parent().unwrap()), ["_data", "volume.json"]);

    // The anonymous one of the image: filled, shown, and removed with its container.
    let mounts = engine
        .container(&id)
        .unwrap()
        .snapshot()
        .definition
        .mounts
        .clone();
    let anonymous = mounts
        .iter()
        .find(|point| point.destination == "/anon")
        .unwrap();
    assert_eq!(
        anonymous.source,
        data(&root, &anonymous.name).to_str().unwrap()
    );
    assert_eq!(names(&data(&root, &anonymous.name)), ["kept"]);
    // What a volume has is never touched.
    std::fs::write(data(&root, "none").join("mine"), "mine").unwrap();
    create(&engine, "again", seeded_request(&["none:/data"])).await;
    assert_eq!(names(&data(&root, "none")), ["mine"]);
    for name in ["copy", "again"] {
        engine.remove(name, &WITH_VOLUMES).await.unwrap();
    }
    assert_eq!(listed(&engine, "").await.unwrap(), ["full", "none"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_image_leads_a_copy_out_of_itself() {
    if !common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = seeded(&root).await;
    for (name, destination) in [
        ("evil", "/evil"),
        ("absolute", "/absolute"),
        ("dots", "/data/../../../etc"),
        ("twice", "/evil/../absolute"),
    ] {
        let bind = format!("{name}:{destination}");
        create(&engine, name, seeded_request(&[&bind])).await;
        assert_eq!(names(&data(&root, name)), ["marker"], "{name}");
        engine.remove(name, &WITH_VOLUMES).await.unwrap();
    }
    // A link in the content stays a link.
    create(&engine, "link", seeded_request(&["content:/data"])).await;
    engine.remove("link", &WITH_VOLUMES).await.unwrap();
    // Files and loops are refused, and nothing is left of the container.
    let (class, message) = refused(&engine, seeded_request(&["other:/file"])).await;
    assert_eq!(class, Class::Internal);
    assert!(
        message.starts_with("source /") && message.ends_with("/merged/file is not directory"),
        "{message}"
    );
    let mut declared = seeded_request(&[]);
    declared.config.volumes = serde_json::from_str(r#"{"/data/f":{}}"#).unwrap();
    let (_, message) = refused(&engine, declared).await;
    let text = "cannot mount volume over existing file, file exists /";
    assert!(
        message.starts_with(text) && message.ends_with("/merged/data/f"),
        "{message}"
    );
    assert_eq!(
        refused(&engine, seeded_request(&["other:/loop"])).await.0,
        Class::Internal
    );
    root.assert_clean();
    let left = listed(&engine, r#"{"label":["com.docker.volume.anonymous"]}"#).await;
    assert_eq!(left.unwrap(), Vec::<String>::new());
}
