//! Jobs that no launcher has described.

use sapwood::bootstrap::UniqueId;
use sapwood::communicator::Communicator;

use crate::sum;

#[test]
fn ranks_meet_by_a_unique_id() {
    for id in [
        UniqueId::on_one_host().unwrap(),
        UniqueId::at("127.0.0.1").unwrap(),
    ] {
        let bytes = id.to_bytes();
        std::thread::scope(|scope| {
            for rank in 1..3 {
                scope.spawn(move || {
                    let id = UniqueId::from_bytes(&bytes).unwrap();
                    let communicator = Communicator::from_unique_id(&id, rank, 3).unwrap();
                    assert_eq!((communicator.rank(), sum(&communicator, 2)), (rank, 6));
                    communicator.finalize().unwrap();
                });
            }
            let communicator = Communicator::from_unique_id(&id, 0, 3).unwrap();
            assert_eq!(sum(&communicator, 2), 6);
            communicator.finalize().unwrap();
        });
    }
    let error = UniqueId::on_one_host().unwrap().job(3, 3).unwrap_err();
    assert!(error.to_string().contains("the last one is 2"), "{error}");
}
