//! Names, lookups, holders and removal: Docker's answers in Docker's words.

use crate::testing::*;
use crate::*;

fn stopped(_: &str) -> bool {
    false
}

fn options(force: bool) -> RemoveOptions<'static> {
    RemoveOptions {
        force,
        prune: true,
        is_running: &stopped,
    }
}

fn layer(content: &[u8]) -> Vec<u8> {
    TarMaker::new().file("file", content).done()
}

/// What a removal answered, in short: `-name`, `=image`, `~layer`.
fn shown(removed: &[Removed]) -> Vec<String> {
    let line = |step: &Removed| match step {
        Removed::Untagged { reference, .. } => format!("-{reference}"),
        Removed::Deleted(_) => "=image".to_owned(),
        Removed::DeletedLayer(_) => "~layer".to_owned(),
    };
    removed.iter().map(line).collect()
}

#[test]
fn an_image_is_found_by_name_id_and_prefix() {
    if !testkit::is_root() {
        return;
    }
    let test = TestStore::new();
    let loaded = test
        .load(&docker_archive(&["a:1"], &[layer(b"1")]))
        .unwrap();
    let id = loaded[0].id.clone();
    let hex = id.hex();
    let digest = Digest::of(b"manifest");
    let by_digest = Reference::parse("a").unwrap().with_digest(digest.clone());
    let image = test.store.resolve("a:1").unwrap();
    let new = NewImage {
        id: id.clone(),
        config: image.config.clone(),
        manifest: None,
        parent: None,
        layers: Vec::new(),
        names: vec![by_digest],
    };
    test.store.commit(&[new]).unwrap();
    for name in [
        "a:1",
        "docker.io/library/a:1",
        id.as_str(),
        hex,
        &hex[..12],
        &hex[..1],
        &format!("sha256:{}", &hex[..5]),
        &format!("a@{digest}"),
        &format!("a:whatever@{digest}"),
    ] {
        assert_eq!(test.store.resolve(name).unwrap().id, id, "{name}");
    }
    let image = test.store.resolve("a:1").unwrap();
    assert_eq!(image.repo_digests[0].familiar(), format!("a@{digest}"));
    let missing = |name: &str| test.store.resolve(name).unwrap_err();
    assert_eq!(missing("a").to_string(), "No such image: a:latest");
    assert_eq!(missing("a").kind(), ErrorKind::NotFound);
    let zeros = "0".repeat(64);
    assert_eq!(
        missing(&zeros).to_string(),
        format!("No such image: sha256:{zeros}")
    );
    assert_eq!(
        missing(&format!("sha256:{hex}0")).kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        missing("Foo").to_string(),
        "invalid reference format: repository name (library/Foo) must be lowercase"
    );
    assert_eq!(missing("../../x").to_string(), "invalid reference format");
}

#[test]
fn an_ambiguous_prefix_is_no_image() {
    if !testkit::is_root() {
        return;
    }
    let test = TestStore::new();
    // Seventeen images: two ids begin with the same digit.
    for number in 0..17_u8 {
        let tag = format!("t:{number}");
        test.load(&docker_archive(&[&tag], &[layer(&[number])]))
            .unwrap();
    }
    let ids: Vec<Digest> = test
        .store
        .list()
        .unwrap()
        .into_iter()
        .map(|image| image.id)
        .collect();
    let shared = ids.iter().find(|id| {
        ids.iter()
            .filter(|other| other.hex()[..1] == id.hex()[..1])
            .count()
            > 1
    });
    let prefix = &shared.unwrap().hex()[..1];
    let error = test.store.resolve(prefix).unwrap_err();
    assert_eq!(error.to_string(), format!("No such image: {prefix}:latest"));
}

#[test]
fn names_are_taken_first_and_the_image_with_the_last() {
    if !testkit::is_root() {
        return;
    }
    let test = TestStore::new();
    let before = test.files();
    test.load(&docker_archive(
        &["a:1", "b:1"],
        &[layer(b"1"), layer(b"2")],
    ))
    .unwrap();
    let id = test.store.resolve("a:1").unwrap().id;
    assert_eq!(
        shown(&test.store.remove("a:1", options(false)).unwrap()),
        ["-a:1"]
    );
    test.store
        .tag(&id, &Reference::parse("c").unwrap())
        .unwrap();
    let error = test.store.remove(id.short(), options(false)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to delete {} (must be forced) - image is referenced in multiple \
             repositories",
            id.short()
        )
    );
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let removed = test.store.remove(id.short(), options(true)).unwrap();
    assert_eq!(
        shown(&removed),
        ["-b:1", "-c:latest", "=image", "~layer", "~layer"]
    );
    assert_eq!(test.files(), before, "nothing is left");
    assert!(test.store.list().unwrap().is_empty());
}

#[test]
fn a_container_is_in_the_way() {
    if !testkit::is_root() {
        return;
    }
    let test = TestStore::new();
    test.load(&docker_archive(&["a:1"], &[layer(b"1")]))
        .unwrap();
    let id = test.store.resolve("a:1").unwrap().id;
    let holder = "c0ffee".repeat(10);
    let held = test.store.hold(&id, &holder).unwrap();
    let by_name = test.store.remove("a:1", options(false)).unwrap_err();
    assert_eq!(
        by_name.to_string(),
        format!(
            "conflict: unable to remove repository reference \"a:1\" (must force) - container \
             c0ffeec0ffee is using its referenced image {}",
            id.short()
        )
    );
    let by_id = test.store.remove(id.short(), options(false)).unwrap_err();
    assert_eq!(
        by_id.to_string(),
        format!(
            "conflict: unable to delete {} (must be forced) - image is being used by stopped \
             container c0ffeec0ffee",
            id.short()
        )
    );
    let running = RemoveOptions {
        is_running: &|_| true,
        ..options(true)
    };
    let error = test.store.remove(id.short(), running).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to delete {} (cannot be forced) - image is being used by running \
             container c0ffeec0ffee",
            id.short()
        )
    );
    let by_force = RemoveOptions {
        is_running: &|_| true,
        ..options(true)
    };
    let untagged = test.store.remove("a:1", by_force).unwrap();
    assert_eq!(
        shown(&untagged),
        ["-a:1"],
        "a running container keeps the image, not its name"
    );
    assert_eq!(
        shown(&test.store.remove(id.short(), options(true)).unwrap()),
        ["=image"]
    );
    assert!(
        held.layers_dir.join(&held.lower[0]).join("file").is_file(),
        "the container's layers stay"
    );
    assert_eq!(test.store.held(&holder).unwrap(), Some(held));
    test.store.release(&holder).unwrap();
    assert_eq!(test.files(), Vec::<String>::new());
    test.store.release(&holder).unwrap();
}

#[test]
fn shared_layers_go_with_their_last_image() {
    if !testkit::is_root() {
        return;
    }
    let test = TestStore::new();
    test.load(&docker_archive(&["a:1"], &[layer(b"base"), layer(b"1")]))
        .unwrap();
    test.load(&docker_archive(&["b:1"], &[layer(b"base"), layer(b"22")]))
        .unwrap();
    let (a, b) = (
        test.store.resolve("a:1").unwrap(),
        test.store.resolve("b:1").unwrap(),
    );
    assert_eq!(a.layers[0], b.layers[0]);
    let sizes = test.store.sizes(&b).unwrap();
    assert_eq!(
        sizes,
        Sizes {
            shared_bytes: 4,
            unique_bytes: 2
        }
    );
    let removed = test.store.remove("a:1", options(false)).unwrap();
    assert_eq!(shown(&removed), ["-a:1", "=image", "~layer"]);
    assert!(test.layer("b:1", 0).join("file").is_file());
}

#[test]
fn a_tag_that_moves_leaves_a_dangling_image() {
    if !testkit::is_root() {
        return;
    }
    let test = TestStore::new();
    let first = test
        .load(&docker_archive(&["a:1"], &[layer(b"1")]))
        .unwrap();
    let (second, events) = load(&test.store, &docker_archive(&["a:1"], &[layer(b"2")])).unwrap();
    let renamed = LoadProgress::Renamed {
        reference: Reference::parse("a:1").unwrap(),
        from: first[0].id.clone(),
    };
    assert!(events.contains(&renamed), "{events:?}");
    let old = test.store.get(&first[0].id).unwrap();
    assert!(old.references.is_empty());
    assert_eq!(test.store.resolve("a:1").unwrap().id, second[0].id);
}

#[test]
fn an_image_without_layers_has_something_to_mount() {
    if !testkit::is_root() {
        return;
    }
    let test = TestStore::new();
    test.load(&docker_archive(&["scratch:1"], &[])).unwrap();
    let id = test.store.resolve("scratch:1").unwrap().id;
    let held = test.store.hold(&id, "c").unwrap();
    assert_eq!(held.lower, ["0"]);
    assert!(held.layers_dir.join("0").is_dir());
    assert_eq!(test.store.holders().unwrap(), ["c"]);
}

#[test]
fn history_is_newest_first() {
    if !testkit::is_root() {
        return;
    }
    let test = TestStore::new();
    let extra = r#""history":[
        {"created":"2024-01-01T00:00:00Z","created_by":"ADD x"},
        {"created":"2024-01-02T00:00:00Z","created_by":"CMD sh","empty_layer":true}],"#;
    test.load(&docker_archive_with(&["a:1"], &[layer(b"123")], extra))
        .unwrap();
    let image = test.store.resolve("a:1").unwrap();
    let items = test.store.history(&image).unwrap();
    assert_eq!(items[0].id, Some(image.id.clone()));
    assert_eq!(items[0].tags, ["a:1"]);
    assert_eq!(
        (items[0].created_by.as_str(), items[0].size_bytes),
        ("CMD sh", 0)
    );
    assert_eq!(
        (items[1].id.as_ref(), items[1].size_bytes, items[1].created),
        (None, 3, 1_704_067_200)
    );
}

#[test]
fn a_tag_must_be_a_tag() {
    if !testkit::is_root() {
        return;
    }
    let test = TestStore::new();
    test.load(&docker_archive(&["a:1"], &[])).unwrap();
    let id = test.store.resolve("a:1").unwrap().id;
    let digest = Reference::parse(&format!("x@{id}")).unwrap();
    let error = test.store.tag(&id, &digest).unwrap_err();
    assert_eq!(
        error.to_string(),
        "refusing to create a tag with a digest reference"
    );
    let name = Reference::parse("x").unwrap();
    assert_eq!(test.store.tag(&id, &name).unwrap(), None);
    assert_eq!(test.store.untag(&name).unwrap(), id);
    assert_eq!(
        test.store.untag(&name).unwrap_err().to_string(),
        "No such image: x:latest"
    );
    let nobody = test.store.tag(&Digest::of(b""), &name).unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::NotFound);
}
