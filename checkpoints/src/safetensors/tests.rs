use super::*;
use crate::fs::atomic_write;

fn file_of(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn problem_of(bytes: &[u8], limit: HeaderLimit) -> WeightsProblem {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.safetensors");
    fs_err::write(&path, bytes).unwrap();
    match TensorFile::open_within(&path, limit) {
        Err(CheckpointError::Weights { path: named, problem }) => {
            assert_eq!(named, path);
            problem
        }
        other => panic!("expected a problem, found {other:?}"),
    }
}

fn check(header: &str, data: &[u8]) -> WeightsProblem {
    problem_of(&file_of(header, data), HeaderLimit::Weights)
}

fn sample() -> TensorMap {
    TensorMap::from([
        ("z.weight".to_owned(), HostTensor::from_f32([2, 2], vec![1.0, 2.0, 3.0, 4.0])),
        ("a.half".to_owned(), HostTensor::from_f32([3], vec![0.5, -0.25, 8.0]).to_f16()),
        ("m.brain".to_owned(), HostTensor::from_f32([1], vec![1.5]).to_bf16()),
        ("alpha".to_owned(), HostTensor::scalar(8.0)),
        (
            "ids".to_owned(),
            HostTensor { shape: vec![1, 2], values: Values::I64(vec![-1, 1 << 40]) },
        ),
        ("empty".to_owned(), HostTensor::from_f32([0, 4], Vec::new())),
    ])
}

fn metadata() -> BTreeMap<String, String> {
    [("ss_z", "1"), ("modelspec.title", "\"quoted\" é\n"), ("a", "2")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

#[test]
fn what_is_written_is_read_back_and_twice_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) =
        (folder.path().join("1.safetensors"), folder.path().join("2.safetensors"));
    let hashes = write_tensors(&first, &sample(), &metadata()).unwrap();
    assert_eq!(write_tensors(&second, &sample(), &metadata()).unwrap(), hashes);
    assert_eq!(crate::fs::read(&first).unwrap(), crate::fs::read(&second).unwrap());

    let file = TensorFile::open_within(&first, HeaderLimit::Adapter).unwrap();
    assert_eq!(file.read_all().unwrap(), sample());
    assert_eq!(file.metadata()["modelspec.title"], "\"quoted\" é\n");
    assert_eq!(file.metadata()["format"], "pt");
    assert_eq!(file.tensors_sha256(), hashes.tensors_sha256);
    assert_eq!(file.tensors_sha256(), tensors::tensors_sha256(&sample()));
    assert_eq!(file.file_sha256(), hashes.file_sha256);
    assert_eq!(crate::hash::file_sha256(&first).unwrap().0, hashes.file_sha256);
}

#[test]
fn metadata_moves_the_file_hash_but_not_the_tensor_hash() {
    let folder = tempfile::tempdir().unwrap();
    let with = write_tensors(&folder.path().join("1"), &sample(), &metadata()).unwrap();
    let without = write_tensors(&folder.path().join("2"), &sample(), &BTreeMap::new()).unwrap();
    assert_eq!(with.tensors_sha256, without.tensors_sha256);
    assert_ne!(with.file_sha256, without.file_sha256);
}

#[test]
fn the_header_is_sorted_and_the_data_is_aligned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    write_tensors(&path, &sample(), &metadata()).unwrap();
    let bytes = crate::fs::read(&path).unwrap();
    let n_header = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    assert_eq!(n_header % 8, 0);
    let header = std::str::from_utf8(&bytes[8..8 + n_header]).unwrap();
    let expected = "{\"__metadata__\":{\"a\":\"2\",\"format\":\"pt\",\"modelspec.title\":\"\\\"quoted\\\" é\\n\",\"ss_z\":\"1\"},\
        \"ids\":{\"dtype\":\"I64\",\"shape\":[1,2],\"data_offsets\":[0,16]},\
        \"alpha\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[16,20]},\
        \"empty\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[20,20]},\
        \"z.weight\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[20,36]},\
        \"m.brain\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[36,38]},\
        \"a.half\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[38,44]}}";
    assert_eq!(header.trim_end(), expected);
}

#[test]
fn the_safetensors_crate_reads_what_we_write_and_orders_it_alike() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    write_tensors(&path, &sample(), &BTreeMap::new()).unwrap();
    let bytes = crate::fs::read(&path).unwrap();
    let theirs = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(theirs.len(), sample().len());
    let weight = theirs.tensor("z.weight").unwrap();
    assert_eq!((weight.dtype(), weight.shape()), (::safetensors::Dtype::F32, [2, 2].as_slice()));
    assert_eq!(weight.data()[4..8], 2.0_f32.to_le_bytes());
    let again = ::safetensors::serialize(theirs.tensors(), None).unwrap();
    let data = |bytes: &[u8]| {
        let n_header = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
        bytes[8 + n_header..].to_vec()
    };
    assert_eq!(data(&bytes), data(&again));
}

#[test]
fn other_element_types_are_widened() {
    let header = r#"{"f":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"i":{"dtype":"I32","shape":[1],"data_offsets":[8,12]},"b":{"dtype":"BOOL","shape":[2],"data_offsets":[12,14]},"q":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[14,15]}}"#;
    let mut data = 0.5_f64.to_le_bytes().to_vec();
    data.extend_from_slice(&(-7_i32).to_le_bytes());
    data.extend_from_slice(&[1, 0, 0x38]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    atomic_write(&path, &file_of(header, &data)).unwrap();
    let file = TensorFile::open(&path).unwrap();
    assert_eq!(file.read("f").unwrap().values, Values::F32(vec![0.5]));
    assert_eq!(file.read("i").unwrap().values, Values::I64(vec![-7]));
    assert_eq!(file.read("b").unwrap().values, Values::I64(vec![1, 0]));
    let error = file.read("q").unwrap_err();
    assert!(error.to_string().contains("`q` as F8_E4M3"), "{error}");
}

#[test]
fn a_missing_tensor_is_named_with_its_nearest_relative() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let tensors = TensorMap::from([
        ("mid.attn.to_q.weight".to_owned(), HostTensor::scalar(1.0)),
        ("mid.attn.to_k.weight".to_owned(), HostTensor::scalar(1.0)),
    ]);
    write_tensors(&path, &tensors, &BTreeMap::new()).unwrap();
    let error = TensorFile::open(&path).unwrap().read("mid_block.attn.to_k.weight").unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("`{}` lacks the tensor `mid_block.attn.to_k.weight`", path.display())
    );
    assert_eq!(error.hint().unwrap(), "the file holds `mid.attn.to_k.weight`");
}

#[test]
fn truncated_files_are_refused_at_every_length() {
    let bytes = bytes_of_sample();
    for n in 0..bytes.len() {
        let problem = Header::parse(&bytes[..n], HeaderLimit::Weights.n_bytes()).unwrap_err();
        assert!(
            matches!(problem, WeightsProblem::Truncated { found, .. } if found == n as u64),
            "{n}: {problem}"
        );
    }
    for n in [0, 7, 8, 100, bytes.len() - 1] {
        assert!(matches!(
            problem_of(&bytes[..n], HeaderLimit::Weights),
            WeightsProblem::Truncated { .. }
        ));
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(
        problem_of(&longer, HeaderLimit::Weights),
        WeightsProblem::TrailingBytes { .. }
    ));
}

#[test]
fn overlapping_and_gapped_offsets_are_refused() {
    let two = |second: &str| {
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}},"b":{{"dtype":"F32","shape":[1],"data_offsets":{second}}}}}"#
        )
    };
    for second in ["[0,4]", "[2,6]", "[5,9]", "[8,4]", "[4,18446744073709551615]"] {
        let problem = check(&two(second), &[0; 16]);
        assert!(
            matches!(problem, WeightsProblem::Offsets { .. } | WeightsProblem::Size { .. }),
            "{second}: {problem:?}"
        );
    }
}

#[test]
fn sizes_that_do_not_fit_shape_and_type_are_refused() {
    let one =
        |shape: &str| format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,4]}}}}"#);
    for shape in ["[2]", "[0]", "[4294967296,4294967296,4294967296]"] {
        assert!(matches!(check(&one(shape), &[0; 4]), WeightsProblem::Size { .. }), "{shape}");
    }
    for shape in ["[1,1,1,1,1,1,1,1,1]", "[-1]", "[1.0]", "1"] {
        assert!(matches!(check(&one(shape), &[0; 4]), WeightsProblem::Header { .. }), "{shape}");
    }
}

#[test]
fn unknown_types_and_duplicate_names_are_refused() {
    let problem = check(r#"{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}"#, &[0; 4]);
    assert_eq!(
        problem,
        WeightsProblem::UnknownDtype { tensor: "a".to_owned(), dtype: "F31".to_owned() }
    );
    let problem = check(
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
        &[0; 2],
    );
    assert_eq!(problem, WeightsProblem::DuplicateName { name: "a".to_owned() });
    for header in [
        r#"{"__metadata__":{"k":"1","k":"2"}}"#,
        r#"{"__metadata__":{"k":1}}"#,
        r#"{"__metadata__":{},"__metadata__":{}}"#,
        "{",
        "[]",
    ] {
        assert!(matches!(check(header, &[]), WeightsProblem::Header { .. }), "{header}");
    }
}

#[test]
fn long_headers_are_refused_before_they_are_read() {
    let mut bytes = 10_000_001_u64.to_le_bytes().to_vec();
    bytes.push(b'{');
    assert!(matches!(
        problem_of(&bytes, HeaderLimit::Adapter),
        WeightsProblem::HeaderTooLong { limit: 10_000_000, .. }
    ));
    assert!(matches!(problem_of(&bytes, HeaderLimit::Weights), WeightsProblem::Truncated { .. }));
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(
        problem_of(&bytes, HeaderLimit::Weights),
        WeightsProblem::HeaderTooLong { .. }
    ));
}

#[test]
fn pickles_are_refused_by_their_first_bytes_with_a_hint() {
    for bytes in [b"PK\x03\x04rest of a zip".as_slice(), b"\x80\x02}q\x00.", b"\x80\x04\x95"] {
        let problem = problem_of(bytes, HeaderLimit::Weights);
        assert_eq!(problem, WeightsProblem::Pickle);
        assert!(problem.hint().unwrap().contains("convert"));
    }
}

#[test]
fn a_header_of_640_bytes_is_not_taken_for_a_pickle() {
    let header = format!("{:<640}", "{}");
    let bytes = file_of(&header, &[]);
    assert_eq!(bytes[..2], [0x80, 2]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    atomic_write(&path, &bytes).unwrap();
    assert!(TensorFile::open(&path).unwrap().is_empty());
}

#[test]
fn a_tensor_whose_shape_does_not_fit_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let tensors = TensorMap::from([(
        "a".to_owned(),
        HostTensor { shape: vec![3], values: Values::F32(vec![0.0; 2]) },
    )]);
    assert!(write_tensors(&path, &tensors, &BTreeMap::new()).is_err());
    assert!(crate::fs::list(folder.path()).unwrap().is_empty());
}

fn bytes_of_sample() -> Vec<u8> {
    let mut bytes = header::header_bytes(&sample(), &metadata()).unwrap();
    write_parts(&mut bytes, &[], &sample()).unwrap();
    bytes
}

proptest::proptest! {
    #[test]
    fn damaged_headers_never_panic(position in 0_usize..700, byte: u8) {
        let mut bytes = bytes_of_sample();
        let position = position % bytes.len();
        bytes[position] = byte;
        if let Ok(header) = Header::parse(&bytes, HeaderLimit::Weights.n_bytes()) {
            for info in header.tensors.values() {
                let data = &bytes[header.data_start..][info.start..info.end];
                proptest::prop_assert!(decode(info.dtype, data).is_none_or(|values| values.len() == info.len()));
            }
        }
    }
}
